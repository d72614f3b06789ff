"""Rejections: messages that could not be read as a push, with their reason and how often they came.

The intake records what it refuses. What never reaches it (no JSON at all) is recorded by the reconciler, which reads
the dead letters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import sqlalchemy as sa

from distgate.changes.triage import decide, parse
from distgate.ledger.database import insert_new
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import REJECTIONS
from distgate.settings import Settings
from distgate.text import printable

#: Strangers choose all of these texts; the ledger keeps what people can read.
LONGEST_ID, LONGEST_TOPIC, LONGEST_REASON = 128, 255, 500
#: A message that is just being put back may still be seen among the dead.
MOVING_SECONDS = 60.0


@dataclass(frozen=True)
class Rejection:
    """A message that was refused: ``seen`` times so far; ``requeued_at`` is set while it waits for a new decision."""

    message_id: str
    topic: str
    reason: str
    seen: int
    first_at: float
    last_at: float
    requeued_at: float | None = None


def reject(ledger: Ledger, message_id: str, topic: str, reason: str) -> None:
    """Record that the message was refused just now; a repeat is counted, its reason replaces the last one."""
    now = time.time()
    with ledger.transaction() as connection:
        row = {"topic": _short(topic, LONGEST_TOPIC), "reason": _short(reason, LONGEST_REASON), "last_at": now}
        this_message = REJECTIONS.c.message_id == _short(message_id, LONGEST_ID)
        key = {"message_id": _short(message_id, LONGEST_ID)}
        # The reconciler may be writing down the same message from the dead letters.
        if not insert_new(connection, REJECTIONS, {**key, **row, "first_at": now}):
            update = REJECTIONS.update().where(this_message)
            connection.execute(update.values(**row, seen=REJECTIONS.c.seen + 1, requeued_at=None))


def note_dead(ledger: Ledger, message_id: str, topic: str, reason: str, times: int = 1) -> bool:
    """Record a dead letter that the intake did not; False when the ledger had it, whose reason then stays.

    ``times`` is how many of its ID are in the queue. One that was put back long ago and is there again
    was refused again.
    """
    key = _short(message_id, LONGEST_ID)
    now = time.time()
    this_message = REJECTIONS.c.message_id == key
    stale = sa.or_(REJECTIONS.c.seen < times, REJECTIONS.c.requeued_at < now - MOVING_SECONDS)
    with ledger.transaction() as connection:
        row = {"topic": _short(topic, LONGEST_TOPIC), "reason": _short(reason, LONGEST_REASON), "seen": times}
        new = {"message_id": key, **row, "first_at": now, "last_at": now}
        if insert_new(connection, REJECTIONS, new):
            return True
        seen = sa.case((REJECTIONS.c.seen < times, times), else_=REJECTIONS.c.seen)
        connection.execute(
            REJECTIONS.update().where(this_message, stale).values(seen=seen, last_at=now, requeued_at=None)
        )
        return False


def requeued(ledger: Ledger, message_ids: Iterable[str]) -> None:
    """Record that these messages were put back into the queue just now: they will be decided about once more."""
    keys = [_short(message_id, LONGEST_ID) for message_id in message_ids]
    with ledger.transaction() as connection:
        for key in keys:
            update = REJECTIONS.update().where(REJECTIONS.c.message_id == key)
            connection.execute(update.values(requeued_at=time.time()))


def rejections(ledger: Ledger, since: float = 0.0) -> list[Rejection]:
    """What was refused at ``since`` (seconds since the epoch) or later, oldest first."""
    query = sa.select(REJECTIONS).where(REJECTIONS.c.last_at >= since).order_by(REJECTIONS.c.first_at)
    with ledger.transaction() as connection:
        return [Rejection(**row._mapping) for row in connection.execute(query)]


def reason_of(topic: str, raw: bytes, settings: Settings) -> str:
    """Why a dead letter was refused that the ledger does not have, as far as its text says."""
    decision = decide(topic, parse(raw), settings)
    if decision.decision == "rejected":
        return decision.reason
    return "the message can be read, but the intake failed on it or its headers; its log says why"


def _short(text: str, limit: int) -> str:
    return printable(text, newlines=False)[:limit]
