"""The trigger of one pipeline: decides about pushes, writes the decision down, and tells Prefect or the bus of it."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace

from fedora_messaging.message import Message

from distgate.bus.announce import Announcer, trigger_key
from distgate.changes.change import Change
from distgate.changes.rules import SETTLING
from distgate.changes.triage import Decision, decide, decide_settled
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.ledger.history import LedgerHistory
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import Acceptance
from distgate.pipelines import Pipeline
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings

log = logging.getLogger(__name__)

#: The event that starts a run: prefect.yaml's automations expect it, each with its own pipeline's label.
EVENT = "distgate.change.accepted"
#: Names our event IDs apart from those of others; never to be changed.
_OFFERS = uuid.UUID("0b7f6d5e-4c1b-4a55-9d55-7c5a2f3be1d4")


class Trigger:
    """Decides for one pipeline, whatever the other one decides about the same push."""

    def __init__(self, ledger: Ledger, prefect: PrefectApi, settings: Settings, pipeline: Pipeline) -> None:
        self._ledger = ledger
        self._history = LedgerHistory(ledger, pipeline)
        self._announcer = Announcer(ledger, settings)
        self._prefect = prefect
        self._settings = settings
        self._pipeline: Pipeline = pipeline
        #: The message that was written down last: while it is tried again, it is no second one.
        self._written: Message | None = None

    def decide(self, message: Message) -> Decision:
        """The decision about a message; nothing is written."""
        decision = decide(message.topic, message.body, self._settings, self._history, self._pipeline)
        fields = (message.topic, message.id, self._pipeline, decision.decision, decision.reason)
        log.info("%s %s: %s: %s (%s)", *fields)
        return decision

    def answer(self, message: Message, decision: Decision) -> None:
        """Write the decision down and do what follows from it; safe to repeat with the same message.

        Raises InfrastructureError when Prefect or the ledger cannot be reached.
        """
        if decision.change is not None:
            acceptance = self._write(decision.change, decision, counted=message is self._written)
            self._written = message
            self._act_on(decision.change, acceptance)

    def forget_message(self) -> None:
        """The message was answered for every pipeline: the next one counts as another."""
        self._written = None

    def act_on_settled(self) -> int:
        """Decide about every change whose push has settled, tell Prefect of those that are tested, and count both.

        Raises InfrastructureError when Prefect or the ledger cannot be reached; what is left is done the next time.
        """
        settled = self._history.settled(self._settings.push_settles)
        for change in settled:
            self._settle(change)
        unoffered = self._history.unoffered()
        for change in unoffered:
            self._offer(change)
        return len(settled) + len(unoffered)

    def _write(self, change: Change, decision: Decision, counted: bool) -> Acceptance:
        acceptance = self._ledger.record(change, decision, counted=counted)
        if acceptance.new or decision.decision == "ignored":
            return acceptance
        # A repeat is ignored as a duplicate; what comes here has a decision that may be taken anew.
        if not self._history.decide_again(change, decision, arrived=True):
            return acceptance
        return replace(acceptance, decision=decision.decision, rule=decision.rule, offered=False)

    def _act_on(self, change: Change, acceptance: Acceptance) -> None:
        if acceptance.decision != "queued":
            self._announcer.ignored(change, self._pipeline)
        elif acceptance.offered:
            log.info("%s is known already: one %s run answers it", change.key, self._pipeline)
        elif acceptance.rule != SETTLING:
            self._offer_or_log(change)
        elif not self._prefect.healthy():
            # Nothing is taken from the bus that could not be started: there it is safe, and counted by the broker.
            raise InfrastructureError("the Prefect server does not answer", hint="PREFECT_API_URL says where it is")

    def _settle(self, change: Change) -> None:
        decision = decide_settled(change, self._settings, self._history, self._pipeline)
        log.info("%s has settled: %s: %s (%s)", change.key, self._pipeline, decision.decision, decision.reason)
        if decision.decision != "queued":
            # Sent before it is written: if we die in between, it is sent again under the same ID, and not forgotten.
            self._announcer.ignored(change, self._pipeline)
        self._history.decide_again(change, decision)

    def _offer_or_log(self, change: Change) -> None:
        try:
            self._offer(change)
        except ConfigurationError as error:
            # The change is written down, and no poison because Prefect refuses us: it is offered again.
            log.error("%s is accepted, and Prefect refuses its event: %s", change.key, error)

    def _offer(self, change: Change) -> None:
        self._prefect.post_event(event_of(change, self._pipeline, self._settings.environment))
        self._ledger.offered(change.key, self._pipeline)


def event_of(change: Change, pipeline: Pipeline, environment: str = "production") -> dict[str, object]:
    """The Prefect event for a change that a pipeline accepted: text only, and nothing that the bus said unread.

    ``environment`` says whose deployments are to answer it.
    """
    labels = {
        "prefect.resource.id": f"distgate.change.{change.namespace}.{change.repo}",
        "prefect.resource.name": change.title,
        "distgate.environment": environment,
        "distgate.pipeline": pipeline,
        "distgate.namespace": change.namespace,
        "distgate.repo": change.repo,
        "distgate.branch": change.branch,
        "distgate.rev": change.rev,
    }
    # The same ID whenever the same change is offered: if we die before we noted the first time, Prefect knows it.
    offer = str(uuid.uuid5(_OFFERS, trigger_key(pipeline, change.key)))
    return {"id": offer, "event": EVENT, "resource": labels, "payload": {"change": change.model_dump()}}
