"""Replay: a message or a run once more, as a forced re-run of its commit."""

from __future__ import annotations

import json
import re
from pathlib import Path

from distgate.change import Change, account_of
from distgate.errors import ConfigurationError
from distgate.ledger import Ledger
from distgate.settings import Settings
from distgate.triage import decide_text

#: A flow run's ID, as it is or as a ``build_id`` on the wire, where later attempts have a number.
_RUN = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:\.\d+)?")


def run_named(text: str) -> str | None:
    """The flow run that ``text`` names by its ID, its ``build_id`` or its page; None when it names none."""
    found = _RUN.fullmatch(text.rstrip("/").rpartition("/")[2])
    return found[1] if found else None


def change_of_run(ledger: Ledger, run_id: str) -> Change:
    """The change that a run answered; raises ConfigurationError when the ledger has no such run."""
    run = ledger.run(run_id)
    if run is None:
        raise ConfigurationError(
            f"the ledger knows no run {run_id}", hint="`distgate why REPO REV` lists the runs of a commit"
        )
    return run.change


def change_of_file(file: Path | None, text: bytes, settings: Settings) -> Change:
    """The change that a message speaks of: a push, or one of our own stage messages.

    Raises ConfigurationError when it names no commit, and when triage would not test it.
    """
    ours = _from_stage_message(text)
    if ours:
        return ours
    decision = decide_text(text, settings)
    if decision.decision != "queued" or decision.change is None:
        raise ConfigurationError(
            f"{file or 'the message'} would be {decision.decision}: {decision.reason}",
            hint="only what triage would test can be replayed; `distgate explain` shows the rules",
        )
    return decision.change


def _from_stage_message(text: bytes) -> Change | None:
    """The change of a message that we sent, with or without an envelope."""
    try:
        body = json.loads(text)
        body = next((body[key] for key in ("msg", "body") if isinstance(body.get(key), dict)), body)
        if ".ci.pipeline." not in str(body.get("topic")):
            return None
        identity = {name: body[name] for name in ("namespace", "repo", "rev", "branch")}
        return Change(**identity, username=account_of(body.get("username")))
    except (ValueError, RecursionError, AttributeError, KeyError):
        return None
