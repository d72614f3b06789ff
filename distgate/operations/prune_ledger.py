"""Pruning what ended long ago: the ledger stays small, and an archive has the lines.

A change goes with its runs and messages or not at all, and only when nothing about it can happen any more: it was
answered, its runs have ended, and the broker has every message.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from distgate.bus.announce import trigger_id
from distgate.changes.rules import SETTLING
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import CHANGES, OUTBOX, RUNS

#: Changes that go in one transaction: other writers wait for it meanwhile.
AT_ONCE = 200


@dataclass(frozen=True)
class Forgotten:
    """How many changes, runs and messages went, or would go."""

    changes: int = 0
    runs: int = 0
    messages: int = 0

    def __add__(self, other: Forgotten) -> Forgotten:
        return Forgotten(self.changes + other.changes, self.runs + other.runs, self.messages + other.messages)


def forget(
    ledger: Ledger, before: float, archive: Path | None, *, most: int = 5000, dry_run: bool = False
) -> Forgotten:
    """Forget changes, ``most`` at most, whose last run ended ``before`` (seconds of the epoch).

    They are written to a file of this month below ``archive`` first. Raises OSError when that cannot be written, and
    nothing is forgotten then.
    """
    total, after = Forgotten(), ("", "")
    while total.changes < most:
        with ledger.transaction() as connection:
            keys = _expired(connection, before, after, min(AT_ONCE, most - total.changes))
            stories = [story for key in keys if (story := _story(connection, key, before)) is not None]
            if archive is not None and stories and not dry_run:
                _write(archive, (story.as_json() for story in stories))
            if not dry_run:
                _delete(connection, stories)
        total += sum((story.counted for story in stories), Forgotten())
        if len(keys) < AT_ONCE:
            break
        after = keys[-1]
    return total


@dataclass(frozen=True)
class _Story:
    """A change with its runs and messages."""

    change: Row[Any]
    runs: Sequence[Row[Any]]
    messages: Sequence[Row[Any]]

    @property
    def counted(self) -> Forgotten:
        return Forgotten(1, len(self.runs), len(self.messages))

    def as_json(self) -> str:
        parts = {"runs": self.runs, "messages": self.messages}
        rows_by_part = {name: [dict(row._mapping) for row in rows] for name, rows in parts.items()}
        return json.dumps({"change": dict(self.change._mapping), **rows_by_part}, sort_keys=True)


def _expired(connection: Connection, before: float, after: tuple[str, str], most: int) -> list[tuple[str, str]]:
    of_change = sa.and_(RUNS.c.key == CHANGES.c.key, RUNS.c.pipeline == CHANGES.c.pipeline)
    lives = sa.exists().where(of_change, sa.or_(RUNS.c.ended_at.is_(None), RUNS.c.ended_at >= before))
    answered = sa.or_(CHANGES.c.run_id.is_not(None), CHANGES.c.decision != "queued")
    query = (
        sa.select(CHANGES.c.key, CHANGES.c.pipeline)
        .where(CHANGES.c.accepted_at < before, answered, CHANGES.c.rule != SETTLING, ~lives)
        .where(sa.tuple_(CHANGES.c.key, CHANGES.c.pipeline) > after)
        .order_by(CHANGES.c.key, CHANGES.c.pipeline)
        .limit(most)
    )
    return [(row.key, row.pipeline) for row in connection.execute(query)]


def _story(connection: Connection, of: tuple[str, str], before: float) -> _Story | None:
    """The change with its runs and messages; None when the broker does not have all of them yet."""
    this_change = sa.and_(CHANGES.c.key == of[0], CHANGES.c.pipeline == of[1])
    # FOR UPDATE, which SQLite has no need of: a retry may be taking the change just now, and is seen below then.
    change = connection.execute(sa.select(CHANGES).where(this_change).with_for_update()).one_or_none()
    its_runs = sa.and_(RUNS.c.key == of[0], RUNS.c.pipeline == of[1])
    runs = connection.execute(sa.select(RUNS).where(its_runs).with_for_update()).all()
    if change is None or any(run.ended_at is None or run.ended_at >= before for run in runs):
        return None
    senders = [trigger_id(change.key, change.pipeline), *(run.run_id for run in runs)]
    messages = connection.execute(sa.select(OUTBOX).where(OUTBOX.c.run_id.in_(senders))).all()
    return None if any(message.sent_at is None for message in messages) else _Story(change, runs, messages)


def _delete(connection: Connection, stories: Iterable[_Story]) -> None:
    for story in stories:
        for message in story.messages:
            connection.execute(OUTBOX.delete().where(OUTBOX.c.seq == message.seq))
        for run in story.runs:
            connection.execute(RUNS.delete().where(RUNS.c.run_id == run.run_id))
        this_change = sa.and_(CHANGES.c.key == story.change.key, CHANGES.c.pipeline == story.change.pipeline)
        connection.execute(CHANGES.delete().where(this_change))


def _write(archive: Path, lines: Iterable[str]) -> None:
    archive.mkdir(parents=True, exist_ok=True)
    path = archive / f"ledger-{datetime.now(UTC):%Y-%m}.jsonl.gz"
    with path.open("ab") as raw:
        with gzip.open(raw, "wt", encoding="utf-8") as stream:  # a member of its own: half a file can be read
            stream.writelines(f"{line}\n" for line in lines)
        raw.flush()
        os.fsync(raw.fileno())
