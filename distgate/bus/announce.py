"""Announcements: a run's stage messages, written into the ledger's outbox once each and in order.

Task hooks call these (tasks.run.stage). A hook may fire twice, and after a retry for stages that are long done; the
ledger's unique key (run, topic, attempt) absorbs that. Message IDs are made from the same three, so that a message
that is sent twice is recognised by its ID.
"""

from __future__ import annotations

import uuid

from distgate.bus.render import Facts, render
from distgate.changes.change import Change
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import Run
from distgate.pipelines import STAGES, STATUS_ORDER, Pipeline, Status, first_stage
from distgate.settings import Settings

#: Names our message IDs apart from those of others; never to be changed.
_ID_SPACE = uuid.UUID("6b1f4c0e-6c52-4d0f-9d1e-2f2b7f5c8a11")


class Announcer:
    """Writes the messages of runs into one ledger, each with the topics of its run's pipeline."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger = ledger
        self._settings = settings

    def stage(self, run_id: str, suffix: str, state: str, status: Status | None = None) -> bool:
        """Announce that a stage of a run is queued, running or complete.

        ``status`` None is what the stage itself came to (RunFacts.statuses), or the run's status so far.

        What was sent is never taken back: a status that is better than the run's own is not sent. False when there
        is nothing to send: the run holds no change, or sent it before, or its pipeline has no such message, as not
        every stage is queued.
        """
        run = self._ledger.run(run_id)
        if run is not None and state == "queued" and _went_on_without(run, suffix):
            # The ledger refused its `complete`, and Prefect goes on whatever became of a hook.
            self.stage(run_id, str(run.open_stage), "complete")
            run = self._ledger.run(run_id)
        if run is None or (state == "queued" and _is_never_queued(run.pipeline, suffix)):
            return False
        stage_status = run.facts.statuses.get(suffix) if state == "complete" else None
        body = self._body(run, suffix, state, worst(run.status, status or stage_status or run.status))
        return self._ledger.post(
            run_id,
            run.attempt,
            message_id(run_id, body["topic"], run.attempt),
            body,
            open_stage=None if state == "complete" else suffix,
            last=not suffix,
        )

    def close(self, run_id: str, status: Status | None = None) -> bool:
        """End a run: the open stage's ``complete``, if one is open, and then the pipeline's; once only."""
        run = self._ledger.run(run_id)
        if run is None or run.ended:
            return False
        if run.open_stage is not None:
            self.stage(run_id, run.open_stage, "complete", status)
        return self.stage(run_id, "", "complete", status)

    def ignored(self, change: Change, pipeline: Pipeline = "allpackages") -> bool:
        """Announce that the trigger of a pipeline rejected a change.

        The ID on the wire is made from both, as there is no run.
        """
        trigger = trigger_id(change.key, pipeline)
        ignore = pipeline == "atomic" and self._settings.legacy_ignore
        facts = self._facts(change, pipeline) | {
            "suffix": first_stage(pipeline).suffix,
            "state": "ignore" if ignore else "ignored",
            "build_id": trigger,
            "build_url": f"{self._settings.ui_url}/automations",
        }
        body = render(Facts.model_validate(facts))
        return self._ledger.post(trigger, 1, message_id(trigger, body["topic"], 1), body)

    def _body(self, run: Run, suffix: str, state: str, status: str) -> dict[str, str]:
        facts = {name: fact for name, fact in run.facts.flat().items() if fact and name in Facts.model_fields}
        run_fields = {
            "suffix": suffix,
            "state": state,
            "status": status,
            "build_id": run.build_id,
            "build_url": run.build_url,
        }
        return render(Facts.model_validate(self._facts(run.change, run.pipeline) | facts | run_fields))

    def _facts(self, change: Change, pipeline: Pipeline) -> dict[str, str]:
        identity = change.model_dump(include={"namespace", "repo", "rev", "branch", "username"})
        return {**identity, "pipeline": pipeline, "main_topic": self._settings.main_topic}


def _went_on_without(run: Run, suffix: str) -> bool:
    """Whether a run that enters the stage ``suffix`` has not announced yet that an earlier one is complete."""
    order = list(STAGES[run.pipeline])
    return run.open_stage in order and suffix in order and order.index(run.open_stage) < order.index(suffix)


def _is_never_queued(pipeline: Pipeline, suffix: str) -> bool:
    stage = STAGES[pipeline].get(suffix)
    return stage is not None and "queued" not in stage.states


def worst(status: str, now: str) -> str:
    """The status to send after ``status``: the worse of both; FAILURE and ABORTED stand as they were sent first."""
    return now if STATUS_ORDER[now] > STATUS_ORDER[status] else status


def trigger_id(key: str, pipeline: Pipeline = "allpackages") -> str:
    """What stands for the run of a change that has none in ``pipeline``: the same for every message about it."""
    return str(uuid.uuid5(_ID_SPACE, trigger_key(pipeline, key)))


def trigger_key(pipeline: Pipeline, key: str) -> str:
    """The question that a change is for one pipeline, as a text to make IDs from.

    All Packages was there first: its IDs are made of the key alone, and must stay what they are.
    """
    return key if pipeline == "allpackages" else f"{pipeline}\n{key}"


def message_id(run_id: str, topic: str, attempt: int) -> str:
    """The same ID whenever the same message is sent."""
    return str(uuid.uuid5(_ID_SPACE, f"{run_id}\n{topic}\n{attempt}"))
