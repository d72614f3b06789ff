"""Figures of the ledger for monitoring: counts and ages, a few bounded queries in one transaction."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from distgate.changes.rules import SETTLING
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import RunFacts
from distgate.ledger.tables import CHANGES, OUTBOX, REJECTIONS, RUNS
from distgate.pipelines import split_topic

#: Seconds that runs with the same error are counted together, and how many different errors are told apart.
RECENT_SECONDS = 6 * 3600.0
MOST_ERRORS = 5
#: Messages that are read at once for the durations of stages.
BATCH = 5000
#: Seconds after which no message turns up any more before one that was seen (PostgreSQL commits out of order).
LATE_SECONDS = 5.0
#: What makes two sentences of the same error differ: hashes and numbers.
_VARYING = re.compile(r"\b[0-9a-f]{7,}\b|\d+")
_ERROR_LENGTH = 120


@dataclass(frozen=True)
class LedgerFigures:
    """The ledger at one moment, times in epoch seconds.

    Keys: ``ended`` pipeline, verdict, blame; ``decided`` pipeline, decision; ``waiting`` pipeline, with a count and
    since when; ``same_errors`` blame and error, of recent runs that ended with the same error on our side.
    """

    ended: Mapping[tuple[str, str, str], int]
    running: Mapping[str, int]
    decided: Mapping[tuple[str, str], int]
    waiting: Mapping[str, tuple[int, float]]
    last_trigger: float | None
    unsent: int
    oldest_unsent: float | None
    dead_letters: int
    same_errors: Mapping[tuple[str, str], int]


def figures(ledger: Ledger) -> LedgerFigures:
    """The figures of now. Raises InfrastructureError when the ledger cannot be read."""
    with ledger.transaction() as connection:
        newest = connection.execute(sa.select(sa.func.max(CHANGES.c.accepted_at))).scalar_one_or_none()
        unsent = sa.select(sa.func.count(), sa.func.min(OUTBOX.c.created_at)).where(OUTBOX.c.sent_at.is_(None))
        count, oldest = connection.execute(unsent).one()
        dead = sa.select(sa.func.count()).select_from(REJECTIONS).where(REJECTIONS.c.requeued_at.is_(None))
        return LedgerFigures(
            ended=_ended(connection),
            running=_running(connection),
            decided=_decided(connection),
            waiting=_waiting(connection),
            last_trigger=newest,
            unsent=count,
            oldest_unsent=oldest,
            dead_letters=connection.execute(dead).scalar_one(),
            same_errors=_same_errors(connection),
        )


def _ended(connection: Connection) -> dict[tuple[str, str, str], int]:
    keys = (RUNS.c.pipeline, RUNS.c.status, _fact(connection, "blame"))
    query = sa.select(*keys, sa.func.count()).where(RUNS.c.ended_at.is_not(None)).group_by(*keys)
    ended: Counter[tuple[str, str, str]] = Counter()
    for pipeline, status, blame, count in connection.execute(query):
        ended[pipeline, status, "" if status == "SUCCESS" else blame or "unknown"] += count
    return dict(ended)


def _running(connection: Connection) -> dict[str, int]:
    query = sa.select(RUNS.c.pipeline, sa.func.count()).where(RUNS.c.ended_at.is_(None)).group_by(RUNS.c.pipeline)
    return {str(pipeline): int(count) for pipeline, count in connection.execute(query)}


def _decided(connection: Connection) -> dict[tuple[str, str], int]:
    keys = (CHANGES.c.pipeline, CHANGES.c.decision)
    rows = connection.execute(sa.select(*keys, sa.func.count()).group_by(*keys))
    return {(str(pipeline), str(decision)): int(count) for pipeline, decision, count in rows}


def _waiting(connection: Connection) -> dict[str, tuple[int, float]]:
    """Accepted changes that no run has claimed so far."""
    unclaimed = sa.and_(CHANGES.c.decision == "queued", CHANGES.c.rule != SETTLING, CHANGES.c.run_id.is_(None))
    query = sa.select(CHANGES.c.pipeline, sa.func.count(), sa.func.min(CHANGES.c.accepted_at)).where(unclaimed)
    rows = connection.execute(query.group_by(CHANGES.c.pipeline))
    return {str(pipeline): (int(count), float(since)) for pipeline, count, since in rows}


def _same_errors(connection: Connection) -> dict[tuple[str, str], int]:
    recent = sa.and_(RUNS.c.ended_at > time.time() - RECENT_SECONDS, RUNS.c.status == "FAILURE")
    query = sa.select(RUNS.c.facts).where(recent).order_by(RUNS.c.ended_at.desc()).limit(1000)
    errors: Counter[tuple[str, str]] = Counter()
    for text in connection.execute(query).scalars():
        facts = RunFacts.from_column(text)
        if facts.blame in ("infrastructure", "configuration", "bug"):
            errors[facts.blame, same_error(facts.sentence)] += 1
    return dict(errors.most_common(MOST_ERRORS))


def same_error(sentence: str) -> str:
    """What two runs that met the same error have in common in their verdicts' sentences."""
    cause = sentence.partition(": ")[2] or sentence
    return _VARYING.sub("N", cause)[:_ERROR_LENGTH]


def _fact(connection: Connection, name: str) -> sa.ColumnElement[Any]:
    """One fact of a run, read by the database."""
    if connection.dialect.name == "postgresql":
        fact: sa.ColumnElement[Any] = sa.cast(RUNS.c.facts, sa.JSON)[name].as_string()
        return fact
    return sa.func.json_extract(RUNS.c.facts, f"$.{name}")


@dataclass(frozen=True)
class StageEnd:
    """A stage that ended: how long it had worked, in seconds."""

    pipeline: str
    stage: str
    seconds: float


class StageEnds:
    """The durations of stages, read on from where the last reading stopped; the first reading begins with the
    ledger's first message."""

    def __init__(self) -> None:
        self._through = 0
        self._began: dict[tuple[str, int, str], float] = {}

    def read(self, ledger: Ledger) -> Iterator[StageEnd]:
        """The stages that ended since the last call. Raises InfrastructureError; the next call goes on from there."""
        while batch := self._batch(ledger):
            for seq, *row in batch:
                self._through = seq
                if end := self._end(*row):
                    yield end

    def _batch(self, ledger: Ledger) -> Sequence[Any]:
        columns = (OUTBOX.c.seq, OUTBOX.c.run_id, OUTBOX.c.attempt, OUTBOX.c.topic, OUTBOX.c.created_at)
        settled = sa.and_(OUTBOX.c.seq > self._through, OUTBOX.c.created_at < time.time() - LATE_SECONDS)
        with ledger.transaction() as connection:
            return connection.execute(sa.select(*columns).where(settled).order_by(OUTBOX.c.seq).limit(BATCH)).all()

    def _end(self, run: str, attempt: int, topic: str, at: float) -> StageEnd | None:
        pipeline, name = split_topic(topic)
        stage, _, state = name.rpartition(".")
        if not stage:
            self._began = {key: began for key, began in self._began.items() if key[0] != run}
        elif state == "running":
            self._began[run, attempt, stage] = at
        elif state == "complete" and (began := self._began.pop((run, attempt, stage), None)) is not None:
            return StageEnd(pipeline, stage, max(0.0, at - began))
        return None
