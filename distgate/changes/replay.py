"""Replay: a message or a run once more, as a forced re-run of its commit."""

from __future__ import annotations

import json
from pathlib import Path

from distgate.changes.change import Change, account_of
from distgate.changes.triage import decide_text
from distgate.errors import ConfigurationError
from distgate.pipelines import Pipeline, split_topic
from distgate.settings import Settings


def change_of_file(
    file: Path | None, text: bytes, settings: Settings, pipeline: Pipeline | None = None
) -> tuple[Change, Pipeline]:
    """The change that a message speaks of, a push or one of our own stage messages, and the pipeline to run.

    Without a ``pipeline``, a message of ours names its own; a push is for the first of the settings'. Raises
    ConfigurationError when it names no commit, and when that pipeline's triage would not test it.
    """
    sent = _from_stage_message(text)
    if sent:
        return sent[0], pipeline or sent[1]
    chosen = pipeline or settings.pipelines[0]
    decision = decide_text(text, settings, chosen)
    if decision.decision != "queued" or decision.change is None:
        explain = "distgate explain" + (f" --pipeline {chosen}" if chosen != "allpackages" else "")
        raise ConfigurationError(
            f"{file or 'the message'} would be {decision.decision}: {decision.reason}",
            hint=f"only what triage would test can be replayed; `{explain}` shows the rules",
        )
    return decision.change, chosen


def _from_stage_message(text: bytes) -> tuple[Change, Pipeline] | None:
    """The change and the pipeline of a message that distgate sent, with or without an envelope."""
    try:
        body = json.loads(text)
        body = next((body[key] for key in ("msg", "body") if isinstance(body.get(key), dict)), body)
        if ".ci.pipeline." not in str(body.get("topic")):
            return None
        identity = {name: body[name] for name in ("namespace", "repo", "rev", "branch")}
        pipeline = split_topic(str(body["topic"]))[0]
        # Atomic Host's messages name the pipeline where others name the committer.
        committer = None if pipeline == "atomic" else body.get("username")
        return Change(**identity, username=account_of(committer)), pipeline
    except (ValueError, RecursionError, AttributeError, KeyError):
        return None
