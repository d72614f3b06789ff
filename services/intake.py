"""The intake: reads pushes from the bus, has each pipeline's trigger answer them, and acknowledges them only then."""

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
#: Seconds between two queries for pushes that have settled, and after one that failed.
SETTLE_SECONDS = 0.5
FAILURE_SECONDS = 5.0


class Intake:
    """Decides about pushes for each pipeline: ``handle`` a message, ``act_on_settled`` pushes.

    Whatever ``handle`` raises is decided by the consumer (distgate.bus.amqp). Both may be called from threads of
    their own; a lock keeps them apart, so that no change is offered twice.
    """

    def __init__(self, ledger: Ledger, prefect: PrefectApi, settings: Settings) -> None:
        self._ledger = ledger
        self._triggers = [
            Trigger(ledger, prefect, settings, pipeline) for pipeline in dict.fromkeys(settings.pipelines)
        ]
        self._lock = threading.Lock()

    def handle(self, message: Message) -> None:
        """Decide about a push; raises MalformedMessage, which sends an unreadable one to the dead letters."""
        with self._lock:
            for trigger in self._triggers:
                decision = trigger.decide(message)
                if decision.decision == "rejected":  # for each pipeline alike: the first one records it
                    self._refuse(message, decision.reason)
                trigger.answer(message, decision)
            for trigger in self._triggers:
                trigger.forget_message()

    def act_on_settled(self) -> int:
        """Decide about every change whose push has settled, tell Prefect of those that are tested, and count both.

        Raises InfrastructureError when Prefect or the ledger cannot be reached; what is left is done the next time.
        """
        with self._lock:
            return sum(trigger.act_on_settled() for trigger in self._triggers)

    def _refuse(self, message: Message, reason: str) -> NoReturn:
        if message.id:
            reject(self._ledger, message.id, message.topic, reason)
        raise MalformedMessage(reason)


def act_until(stopping: threading.Event, intake: Intake, interval: float) -> None:
    """Act on settled pushes every ``interval`` seconds until ``stopping`` is set; errors are logged and survived."""
    pause = interval
    while not stopping.wait(pause):
        pause = interval
        try:
            intake.act_on_settled()
        except Exception:  # the ladder's last rung: without this thread no push would ever be tested
            log.exception("settled pushes are put off for %g s", FAILURE_SECONDS)
            pause = FAILURE_SECONDS


def main(stopping: threading.Event) -> None:
    config = settings()
    intake = Intake(Ledger(config.ledger_url), PrefectApi(config.prefect_api_url), config)
    acting = threading.Thread(target=act_until, args=(stopping, intake, SETTLE_SECONDS), daemon=True)
    acting.start()
    consume(
        intake.handle,
        url=config.amqp_url,
        exchange=config.exchange,
        queue=config.queue,
        topics=TOPICS,
        until=stopping,
    )


if __name__ == "__main__":
    sys.exit(serve("intake", main))
