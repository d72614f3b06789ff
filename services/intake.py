"""The intake: reads pushes from the bus, has each pipeline's trigger answer them, and only then lets go of them."""

from __future__ import annotations

import logging
import sys
import threading
from typing import NoReturn

from fedora_messaging.message import Message

from distgate.bus.amqp import consume
from distgate.changes.change import MalformedMessage
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import reject
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings, settings
from services.service import serve
from services.trigger import Trigger

log = logging.getLogger(__name__)

#: What we listen to, whatever environment it comes from.
TOPICS = ("org.fedoraproject.*.git.receive", "org.fedoraproject.*.pagure.git.receive")
#: Seconds between two looks for pushes that have settled, and after a look that failed.
LOOK_SECONDS = 0.5
TROUBLE_SECONDS = 5.0


class Intake:
    """Decides about pushes for each pipeline: ``handle`` when a message comes, ``conclude`` when a push has settled.

    Whatever ``handle`` raises is decided by the consumer (distgate.bus.amqp). Both may be called from threads of
    their own; they take turns, so that no change is offered twice.
    """

    def __init__(self, ledger: Ledger, prefect: PrefectApi, settings: Settings) -> None:
        self._ledger = ledger
        self._triggers = [Trigger(ledger, prefect, settings, one) for one in dict.fromkeys(settings.pipelines)]
        self._turn = threading.Lock()

    def handle(self, message: Message) -> None:
        """Decide about a push; raises MalformedMessage, which sends an unreadable one to the dead letters."""
        with self._turn:
            for trigger in self._triggers:
                decision = trigger.decide(message)
                if decision.decision == "rejected":  # for each pipeline alike: the first one says it
                    self._refuse(message, decision.reason)
                trigger.answer(message, decision)
            for trigger in self._triggers:
                trigger.forget_message()

    def conclude(self) -> int:
        """Decide about every change whose push has settled, tell Prefect of those that are tested, and count both.

        Raises InfrastructureError when Prefect or the ledger is away; what is left is done the next time.
        """
        with self._turn:
            return sum(trigger.conclude() for trigger in self._triggers)

    def _refuse(self, message: Message, reason: str) -> NoReturn:
        if message.id:
            reject(self._ledger, message.id, message.topic, reason)
        raise MalformedMessage(reason)


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
