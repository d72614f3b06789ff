"""The intake: reads pushes from the bus, decides, writes the decision down, and only then lets go of the message."""

from __future__ import annotations

import logging
import sys
import threading

from fedora_messaging.message import Message

from distgate.announcements import Announcer
from distgate.change import Change, MalformedMessage
from distgate.drivers.amqp import consume
from distgate.drivers.prefect_api import PrefectApi
from distgate.ledger import Ledger
from distgate.rejections import reject
from distgate.settings import Settings, settings
from distgate.triage import decide
from services.lifetime import serve

log = logging.getLogger(__name__)

#: What we listen to, whatever environment it comes from.
TOPICS = ("org.fedoraproject.*.git.receive", "org.fedoraproject.*.pagure.git.receive")
#: The event that starts a run: prefect.yaml's automation expects it.
EVENT = "distgate.change.accepted"


class Intake:
    """Handles one message at a time. Whatever it raises is decided by the consumer (distgate.drivers.amqp)."""

    def __init__(self, ledger: Ledger, prefect: PrefectApi, settings: Settings) -> None:
        self._ledger = ledger
        self._announcer = Announcer(ledger, settings)
        self._prefect = prefect
        self._settings = settings

    def handle(self, message: Message) -> None:
        """Decide about a push; raises MalformedMessage, which sends an unreadable one to the dead letters."""
        decision = decide(message.topic, message.body, self._settings)
        log.info("%s %s: %s (%s)", message.topic, message.id, decision.decision, decision.reason)
        if decision.decision == "rejected":
            if message.id:
                reject(self._ledger, message.id, message.topic, decision.reason)
            raise MalformedMessage(decision.reason)
        if decision.change is not None:
            known = self._ledger.record(decision.change, decision)
            if known.decision != "queued":
                self._announcer.ignored(decision.change)
            elif not known.offered:
                self._offer(decision.change)
            else:
                log.info("%s is known already: one run answers it", decision.change.key)

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
    return {"event": EVENT, "resource": labels, "payload": {"change": change.model_dump()}}


def main(asked: threading.Event) -> None:
    own = settings()
    intake = Intake(Ledger(own.ledger_url), PrefectApi(own.prefect_api_url), own)
    consume(intake.handle, url=own.amqp_url, exchange=own.exchange, queue=own.queue, topics=TOPICS, until=asked)


if __name__ == "__main__":
    sys.exit(serve("intake", main))
