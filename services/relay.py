"""The relay: sends the outbox to the broker, in order, and keeps what it could not send.

One process per ledger. A message is marked only after the broker confirmed it; a relay that dies in between sends
it again with the same ID.
"""

from __future__ import annotations

import logging
import sys
import threading

from distgate.drivers.amqp import Publisher
from distgate.drivers.stage_message import as_message
from distgate.errors import DistgateError
from distgate.ledger import Ledger, Letter
from distgate.settings import settings
from services.lifetime import serve

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
#: Pauses after failures in a row, in seconds; the last one goes on.
PAUSES = (1, 2, 5, 10)


def relay(ledger: Ledger, publisher: Publisher, asked: threading.Event) -> None:
    """Send until ``asked``; a failure pauses the whole queue, because order is part of the contract."""
    failures = 0
    while not asked.is_set():
        letters = ledger.unsent()
        if _send(ledger, publisher, letters, asked):
            failures = 0
            asked.wait(0 if letters else IDLE_SECONDS)
        else:
            asked.wait(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1


def _send(ledger: Ledger, publisher: Publisher, letters: list[Letter], asked: threading.Event) -> bool:
    for letter in letters:
        if asked.is_set():
            return True
        try:
            publisher.publish(as_message(letter))
        except DistgateError as error:
            log.warning(
                "%s of %s stays in the outbox (try %d): %s",
                letter.topic,
                letter.body["repo"],
                letter.tries + 1,
                error,
            )
            ledger.unsendable(letter.seq, str(error))
            return False
        ledger.sent(letter.seq)
        log.info("%s %s of %s %s", letter.topic, letter.body["status"], letter.body["repo"], letter.body["rev"][:7])
    return True


def main(asked: threading.Event) -> None:
    with Publisher(settings().amqp_url, settings().exchange) as publisher:
        relay(Ledger(settings().ledger_url), publisher, asked)


if __name__ == "__main__":
    sys.exit(serve("relay", main))
