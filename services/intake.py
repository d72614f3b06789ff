"""The intake: reads pushes from the bus, decides, writes the decision down, and only then lets go of the message."""

from __future__ import annotations

import logging
import sys
import threading
import uuid
from dataclasses import replace

from fedora_messaging.message import Message

from distgate.announcements import Announcer
from distgate.change import Change, MalformedMessage
from distgate.drivers.amqp import consume
from distgate.drivers.prefect_api import PrefectApi
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.ledger import Acceptance, Ledger
from distgate.ledger_history import LedgerHistory
from distgate.rejections import reject
from distgate.rules import SETTLING
from distgate.settings import Settings, settings
from distgate.triage import Decision, conclude, decide
from services.lifetime import serve

log = logging.getLogger(__name__)

#: What we listen to, whatever environment it comes from.
TOPICS = ("org.fedoraproject.*.git.receive", "org.fedoraproject.*.pagure.git.receive")
#: The event that starts a run: prefect.yaml's automation expects it.
EVENT = "distgate.change.accepted"
#: Names our event IDs apart from everybody else's; never to be changed.
_OFFERS = uuid.UUID("0b7f6d5e-4c1b-4a55-9d55-7c5a2f3be1d4")
#: Seconds between two looks for pushes that have settled, and after a look that failed.
LOOK_SECONDS = 0.5
TROUBLE_SECONDS = 5.0


class Intake:
    """Decides about pushes: ``handle`` when a message comes, ``conclude`` when a push has settled.

    Whatever ``handle`` raises is decided by the consumer (distgate.drivers.amqp). Both may be called from threads of
    their own; they take turns, so that no change is offered twice.
    """

    def __init__(self, ledger: Ledger, prefect: PrefectApi, settings: Settings) -> None:
        self._ledger = ledger
        self._history = LedgerHistory(ledger)
        self._announcer = Announcer(ledger, settings)
        self._prefect = prefect
        self._settings = settings
        self._turn = threading.Lock()
        #: The message that was written down and could not be answered: it is tried again, and is no second one.
        self._in_hand: Message | None = None

    def handle(self, message: Message) -> None:
        """Decide about a push; raises MalformedMessage, which sends an unreadable one to the dead letters."""
        with self._turn:
            decision = decide(message.topic, message.body, self._settings, self._history)
            log.info("%s %s: %s (%s)", message.topic, message.id, decision.decision, decision.reason)
            if decision.decision == "rejected":
                if message.id:
                    reject(self._ledger, message.id, message.topic, decision.reason)
                raise MalformedMessage(decision.reason)
            if decision.change is not None:
                known = self._write(decision.change, decision, counted=message is self._in_hand)
                self._in_hand = message
                self._answer(decision.change, known)
                self._in_hand = None

    def conclude(self) -> int:
        """Decide about every change whose push has settled, tell Prefect of those that are tested, and count both.

        Raises InfrastructureError when Prefect or the ledger is away; what is left is done the next time.
        """
        with self._turn:
            settled = self._history.settled(self._settings.push_settles)
            for change in settled:
                self._conclude(change)
            unoffered = self._history.unoffered()
            for change in unoffered:
                self._offer(change)
        return len(settled) + len(unoffered)

    def _write(self, change: Change, decision: Decision, counted: bool) -> Acceptance:
        known = self._ledger.record(change, decision, counted=counted)
        if known.new or decision.decision == "ignored":
            return known
        # A repeat is ignored as a duplicate; what comes here has a decision that may be taken anew.
        if not self._history.decide_again(change, decision, arrived=True):
            return known
        return replace(known, decision=decision.decision, rule=decision.rule, offered=False)

    def _answer(self, change: Change, known: Acceptance) -> None:
        if known.decision != "queued":
            self._announcer.ignored(change)
        elif known.offered:
            log.info("%s is known already: one run answers it", change.key)
        elif known.rule != SETTLING:
            self._offer_or_say(change)
        elif not self._prefect.healthy():
            # Nothing is taken from the bus that could not be started: there it is safe, and counted by the broker.
            raise InfrastructureError("the Prefect server does not answer", hint="PREFECT_API_URL says where it is")

    def _conclude(self, change: Change) -> None:
        decision = conclude(change, self._settings, self._history)
        log.info("%s has settled: %s (%s)", change.key, decision.decision, decision.reason)
        if decision.decision != "queued":
            # Said before it is written: if we die in between, it is said again under the same ID, and not forgotten.
            self._announcer.ignored(change)
        self._history.decide_again(change, decision)

    def _offer_or_say(self, change: Change) -> None:
        try:
            self._offer(change)
        except ConfigurationError as refused:
            # The change is written down, and no poison because Prefect refuses us: it is offered again.
            log.error("%s is accepted, and Prefect refuses its event: %s", change.key, refused)

    def _offer(self, change: Change) -> None:
        self._prefect.post_event(event_of(change))
        self._ledger.offered(change.key)


def event_of(change: Change) -> dict[str, object]:
    """The Prefect event for an accepted change: text only, and nothing that the bus said unread."""
    labels = {
        "prefect.resource.id": f"distgate.change.{change.namespace}.{change.repo}",
        "prefect.resource.name": change.title,
        "distgate.namespace": change.namespace,
        "distgate.repo": change.repo,
        "distgate.branch": change.branch,
        "distgate.rev": change.rev,
    }
    # The same ID whenever the same change is offered: if we die before we noted the first time, Prefect knows it.
    offer = str(uuid.uuid5(_OFFERS, change.key))
    return {"id": offer, "event": EVENT, "resource": labels, "payload": {"change": change.model_dump()}}


def conclude_until(asked: threading.Event, intake: Intake, interval: float) -> None:
    """Let the intake conclude every ``interval`` seconds until ``asked`` is set; trouble is logged and outlived."""
    pause = interval
    while not asked.wait(pause):
        pause = interval
        try:
            intake.conclude()
        except Exception:  # the ladder's last rung: without this thread no push would ever be tested
            log.exception("settled pushes are put off for %g s", TROUBLE_SECONDS)
            pause = TROUBLE_SECONDS


def main(asked: threading.Event) -> None:
    own = settings()
    intake = Intake(Ledger(own.ledger_url), PrefectApi(own.prefect_api_url), own)
    concluding = threading.Thread(target=conclude_until, args=(asked, intake, LOOK_SECONDS), daemon=True)
    concluding.start()
    consume(intake.handle, url=own.amqp_url, exchange=own.exchange, queue=own.queue, topics=TOPICS, until=asked)


if __name__ == "__main__":
    sys.exit(serve("intake", main))
