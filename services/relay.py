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


def relay(ledger: Ledger, lock: LeaderLock, publisher: Publisher, stopping: threading.Event) -> None:
    """Send until ``stopping`` is set, while this process holds the lock.

    A broker that fails pauses the whole queue, because order is part of the contract.
    """
    _check(publisher)
    failures = 0
    while wait_for_leadership(lock, stopping):
        try:
            messages = ledger.unsent()
            done = _send(ledger, publisher, messages, stopping)
        except InfrastructureError as error:
            log.error("the outbox waits: %s", error)
            messages, done = [], False
        if done:
            failures = 0
            stopping.wait(0 if messages else IDLE_SECONDS)
        else:
            stopping.wait(_pause(failures))
            failures += 1


def _check(publisher: Publisher) -> None:
    """Log at the start what would otherwise be noticed with the first message, maybe days later."""
    try:
        publisher.check()
    except DistgateError as error:
        log.error("nothing can be sent now, every message will wait: %s", error)
    else:
        log.info("sending to the exchange %s", publisher.exchange)


def _send(ledger: Ledger, publisher: Publisher, messages: list[OutboxMessage], stopping: threading.Event) -> bool:
    """Send what can be sent; False when nothing can be for now. A message that no try will make fit for sending
    holds up its own run alone."""
    blocked: set[str] = set()
    for message in messages:
        if stopping.is_set():
            return True
        run = message.body.get("build_id", "")
        if run in blocked:
            continue
        try:
            publisher.publish(as_message(message))
        except DistgateError as error:
            _note(ledger, message, error)
            if error.blame != "bug":
                return False
            blocked.add(run)
            continue
        _mark(ledger, message, stopping)
    return not blocked or len(blocked) < len({message.body.get("build_id", "") for message in messages})


def _note(ledger: Ledger, message: OutboxMessage, error: DistgateError) -> None:
    name, repo, tries = message.topic, message.body.get("repo", ""), message.tries + 1
    log.warning("%s of %s stays in the outbox (try %d): %s", name, repo, tries, error)
    ledger.unsendable(message.seq, str(error))


def _mark(ledger: Ledger, message: OutboxMessage, stopping: threading.Event) -> None:
    """Mark a confirmed message, however long the ledger cannot be written: it must not be sent once more for every
    try. Only when ``stopping`` is set meanwhile will the next relay send it again, with the same ID."""
    failures = 0
    while True:
        try:
            ledger.sent(message.seq)
        except InfrastructureError as error:
            log.error("%s of %s was sent and cannot be marked: %s", message.topic, message.body["repo"], error)
        else:
            log.info(
                "%s %s of %s %s", message.topic, message.body["status"], message.body["repo"], message.body["rev"][:7]
            )
            return
        if stopping.wait(_pause(failures)):
            return
        failures += 1


def _pause(failures: int) -> float:
    return PAUSES[min(failures, len(PAUSES) - 1)]


def main(stopping: threading.Event) -> None:
    with Publisher(settings().amqp_url, settings().exchange) as publisher:
        ledger = Ledger(settings().ledger_url)
        relay(ledger, open_leader_lock(settings().ledger_url, "relay"), publisher, stopping)


if __name__ == "__main__":
    sys.exit(serve("relay", main))
