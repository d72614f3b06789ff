"""The relay: sends the outbox to the broker, in order, and keeps what it could not send.

One process per ledger: a second one waits for its end. A message is marked only after the broker confirmed it; a
relay that dies in between sends it again with the same ID.
"""

from __future__ import annotations

import logging
import sys
import threading

from distgate.bus.amqp import Publisher
from distgate.bus.message import as_message
from distgate.errors import DistgateError, InfrastructureError
from distgate.ledger.leader import LeaderLock, open_leader_lock
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import OutboxMessage
from distgate.settings import settings
from services.leadership import wait_for_leadership
from services.service import serve

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.2
#: Pauses after failures in a row, in seconds; the last one goes on.
PAUSES = (1, 2, 5, 10)


def relay(ledger: Ledger, seat: LeaderLock, publisher: Publisher, asked: threading.Event) -> None:
    """Send until ``asked``, while the seat is ours; a broker that fails pauses the whole queue, because order is part
    of the contract."""
    _look(publisher)
    failures = 0
    while wait_for_leadership(seat, asked):
        try:
            letters = ledger.unsent()
            done = _send(ledger, publisher, letters, asked)
        except InfrastructureError as error:
            log.error("the outbox waits: %s", error)
            letters, done = [], False
        if done:
            failures = 0
            asked.wait(0 if letters else IDLE_SECONDS)
        else:
            asked.wait(_pause(failures))
            failures += 1


def _look(publisher: Publisher) -> None:
    """Say at the start what would otherwise be noticed with the first message, maybe days later."""
    try:
        publisher.check()
    except DistgateError as error:
        log.error("nothing can be sent now, every message will wait: %s", error)
    else:
        log.info("sending to the exchange %s", publisher.exchange)


def _send(ledger: Ledger, publisher: Publisher, letters: list[OutboxMessage], asked: threading.Event) -> bool:
    """Send what can be sent; False when nothing can be for now. A message that no try will make fit for sending
    holds up its own run alone."""
    stuck: set[str] = set()
    for letter in letters:
        if asked.is_set():
            return True
        run = letter.body.get("build_id", "")
        if run in stuck:
            continue
        try:
            publisher.publish(as_message(letter))
        except DistgateError as error:
            _note(ledger, letter, error)
            if error.blame != "bug":
                return False
            stuck.add(run)
            continue
        _mark(ledger, letter, asked)
    return not stuck or len(stuck) < len({letter.body.get("build_id", "") for letter in letters})


def _note(ledger: Ledger, letter: OutboxMessage, error: DistgateError) -> None:
    name, repo, tries = letter.topic, letter.body.get("repo", ""), letter.tries + 1
    log.warning("%s of %s stays in the outbox (try %d): %s", name, repo, tries, error)
    ledger.unsendable(letter.seq, str(error))


def _mark(ledger: Ledger, letter: OutboxMessage, asked: threading.Event) -> None:
    """Mark a confirmed message, however long the ledger cannot be written: it must not be sent once more for every
    try. Only when we are asked to end meanwhile will the next relay send it again, with the same ID."""
    failures = 0
    while True:
        try:
            ledger.sent(letter.seq)
        except InfrastructureError as error:
            log.error("%s of %s was sent and cannot be marked: %s", letter.topic, letter.body["repo"], error)
        else:
            log.info(
                "%s %s of %s %s", letter.topic, letter.body["status"], letter.body["repo"], letter.body["rev"][:7]
            )
            return
        if asked.wait(_pause(failures)):
            return
        failures += 1


def _pause(failures: int) -> float:
    return PAUSES[min(failures, len(PAUSES) - 1)]


def main(asked: threading.Event) -> None:
    with Publisher(settings().amqp_url, settings().exchange) as publisher:
        ledger = Ledger(settings().ledger_url)
        relay(ledger, open_leader_lock(settings().ledger_url, "relay"), publisher, asked)


if __name__ == "__main__":
    sys.exit(serve("relay", main))
