"""The ledger: accepted changes, the runs that claimed them, and the outbox, in one database.

The bus and Prefect's events deliver at least once at best and sometimes not at all; the ledger is what is true.
A change stands here once for each pipeline that decided about it, before anybody is told of it; a run claims it for
its pipeline before it works, and a message stands in the outbox before it is sent. SQLAlchemy on a URL: SQLite in WAL
mode on one host, PostgreSQL beyond (notes: prefect, section 10).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import DatabaseError

from distgate.change import Change
from distgate.errors import InfrastructureError
from distgate.ledger_tables import CHANGES, OUTBOX, RUNS, insert_new, open_engine
from distgate.plain_text import printable
from distgate.rules import SETTLING
from distgate.stages import Pipeline
from distgate.triage import Decision

#: Runs with the change that each holds.
_RUNS = sa.select(RUNS, CHANGES.c.change).join(
    CHANGES, sa.and_(CHANGES.c.key == RUNS.c.key, CHANGES.c.pipeline == RUNS.c.pipeline)
)


@dataclass(frozen=True)
class Acceptance:
    """What the ledger says of a decided change: ``new`` is False when it stood there before, ``offered`` is
    True once Prefect was told of it or a run has claimed it. ``decision`` and ``rule`` are those that stand there."""

    key: str
    new: bool
    decision: str
    offered: bool = False
    rule: str = ""


@dataclass(frozen=True)
class Run:
    """A run that holds a change for its pipeline. ``attempt`` counts its complete sets of messages, from 1."""

    run_id: str
    change: Change
    build_url: str
    attempt: int
    status: str
    open_stage: str | None
    facts: dict[str, str]
    ended: bool
    pipeline: Pipeline = "allpackages"

    @property
    def build_id(self) -> str:
        """The ID on the wire: a retry after the last message is a run of its own there."""
        return self.run_id if self.attempt == 1 else f"{self.run_id}.{self.attempt}"


@dataclass(frozen=True)
class Letter:
    """A message in the outbox."""

    seq: int
    message_id: str
    topic: str
    body: dict[str, str]
    created_at: float
    sent_at: float | None
    tries: int
    error: str | None


class Ledger:
    """One connection pool on the ledger's database; every method is one transaction and safe to repeat."""

    def __init__(self, url: str) -> None:
        with _reported():
            self._engine: Engine = open_engine(url)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction on the tables of distgate.ledger_tables; InfrastructureError when it cannot be had."""
        with _reported(), self._engine.begin() as connection:
            yield connection

    # -- changes -------------------------------------------------------------------------------------------------

    def record(self, change: Change, decision: Decision, *, counted: bool = False) -> Acceptance:
        """Write a decided change down for the pipeline of the decision; a repeat is counted (unless it was
        ``counted``), no more."""
        mine = _of(change.key, decision.pipeline)
        with self.transaction() as connection:
            if insert_new(connection, CHANGES, _change_row(change, decision)):
                return Acceptance(change.key, True, decision.decision, rule=decision.rule)
            if not counted:
                connection.execute(CHANGES.update().where(mine).values(seen=CHANGES.c.seen + 1))
            known = connection.execute(sa.select(CHANGES).where(mine)).one()
            offered = known.offered_at is not None or known.run_id is not None
            return Acceptance(change.key, False, known.decision, offered, known.rule)

    def unclaimed(self, older_than: float, pipeline: Pipeline = "allpackages") -> list[Change]:
        """Changes that ``pipeline`` accepted, that no run of it has claimed, and that were last offered
        ``older_than`` seconds ago.

        Those that wait for a newer commit of their push are not accepted yet: the intake decides about them.
        """
        query = sa.select(CHANGES.c.change).where(
            CHANGES.c.pipeline == pipeline,
            CHANGES.c.decision == "queued",
            CHANGES.c.rule != SETTLING,
            CHANGES.c.run_id.is_(None),
            sa.func.coalesce(CHANGES.c.offered_at, CHANGES.c.accepted_at) < time.time() - older_than,
        )
        with self.transaction() as connection:
            rows = connection.execute(query.order_by(CHANGES.c.accepted_at)).scalars()
            return [Change.model_validate_json(row) for row in rows]

    def accepted_at(self, changes: Sequence[Change], pipeline: Pipeline = "allpackages") -> float:
        """When the first of these changes came to ``pipeline``, in seconds since the epoch; else now."""
        keys = [change.key for change in changes]
        parts = [keys[start : start + 500] for start in range(0, len(keys), 500)]  # SQLite bounds its variables
        earliest = sa.select(sa.func.min(CHANGES.c.accepted_at)).where(CHANGES.c.pipeline == pipeline)
        with self.transaction() as connection:
            came = [connection.execute(earliest.where(CHANGES.c.key.in_(part))).scalar() for part in parts]
        return min((one for one in came if one is not None), default=time.time())

    def offered(self, key: str, pipeline: Pipeline = "allpackages") -> None:
        """Note that the change was offered to Prefect just now, for ``pipeline``."""
        with self.transaction() as connection:
            connection.execute(CHANGES.update().where(_of(key, pipeline)).values(offered_at=time.time()))

    # -- runs ----------------------------------------------------------------------------------------------------

    def claim(
        self,
        change: Change,
        run_id: str,
        build_url: str,
        *,
        again: bool = False,
        pipeline: Pipeline = "allpackages",
    ) -> Run | None:
        """Take the change for a run of ``pipeline``; None when another run of it holds the change and ``again`` does
        not ask for a re-run.

        The run that holds it gets it again: that is a retry, and a new attempt if its last message was written.
        """
        with self.transaction() as connection:
            if not self._take(connection, change, run_id, pipeline, again):
                return None
            self._open_run(connection, change, run_id, build_url, pipeline)
        return self.run(run_id)

    def _take(self, connection: Connection, change: Change, run_id: str, pipeline: Pipeline, again: bool) -> bool:
        """Write down that the run holds the change; False when another one does."""
        asked = Decision("queued", "started by hand", "manual", pipeline)
        where = _of(change.key, pipeline)
        mine = sa.or_(CHANGES.c.run_id.is_(None), CHANGES.c.run_id == run_id)
        free = where if again else sa.and_(where, mine)
        while True:
            # A run is no push: it is not counted as one more of them.
            insert_new(connection, CHANGES, _change_row(change, asked))
            if connection.execute(CHANGES.update().where(free).values(run_id=run_id)).rowcount:
                return True
            if connection.execute(sa.select(CHANGES.c.key).where(where)).first():
                return False
            # It was there, and has been forgotten since: once more.

    def _open_run(
        self, connection: Connection, change: Change, run_id: str, build_url: str, pipeline: Pipeline
    ) -> None:
        row = {
            "run_id": run_id,
            "key": change.key,
            "pipeline": pipeline,
            "build_url": build_url,
            "attempt": 1,
            "status": "SUCCESS",
            "facts": "{}",
            "claimed_at": time.time(),
            "beat_at": time.time(),
        }
        if insert_new(connection, RUNS, row):
            return
        connection.execute(RUNS.update().where(RUNS.c.run_id == run_id).values(beat_at=time.time()))
        # A run that said its last word begins a new set of messages; what it learnt stays true.
        ended = sa.and_(RUNS.c.run_id == run_id, RUNS.c.ended_at.is_not(None))
        connection.execute(
            RUNS.update()
            .where(ended)
            .values(attempt=RUNS.c.attempt + 1, status="SUCCESS", ended_at=None, open_stage=None)
        )

    def run(self, run_id: str) -> Run | None:
        """The run as the ledger knows it, or None."""
        with self.transaction() as connection:
            row = connection.execute(_RUNS.where(RUNS.c.run_id == run_id)).one_or_none()
        return _run(row) if row else None

    def beat(self, run_id: str, attempt: int) -> bool:
        """Say that the run is alive; False when it was given up, or another attempt of it has begun."""
        with self.transaction() as connection:
            mine = sa.and_(RUNS.c.run_id == run_id, RUNS.c.attempt == attempt, RUNS.c.ended_at.is_(None))
            return connection.execute(RUNS.update().where(mine).values(beat_at=time.time())).rowcount == 1

    def silent(self, seconds: float) -> list[Run]:
        """Runs without a last message that have not said for ``seconds`` that they are alive."""
        quiet = sa.and_(RUNS.c.ended_at.is_(None), RUNS.c.beat_at < time.time() - seconds)
        with self.transaction() as connection:
            return [_run(row) for row in connection.execute(_RUNS.where(quiet)).all()]

    def runs_of(self, key: str, pipeline: Pipeline = "allpackages") -> list[Run]:
        """Every run of ``pipeline`` that ever held the change, oldest first."""
        mine = sa.and_(RUNS.c.key == key, RUNS.c.pipeline == pipeline)
        with self.transaction() as connection:
            rows = connection.execute(_RUNS.where(mine).order_by(RUNS.c.claimed_at)).all()
        return [_run(row) for row in rows]

    def learn(self, run_id: str, **facts: str) -> None:
        """Keep facts of a run, such as its NVR, for every later message; of texts, what people can read."""
        # Strangers wrote some of them, and PostgreSQL reads no JSON with a NUL or half a character in it.
        told = {name: printable(fact) for name, fact in facts.items()}
        with self.transaction() as connection:
            mine = sa.select(RUNS.c.facts).where(RUNS.c.run_id == run_id).with_for_update()
            known = connection.execute(mine).scalar_one()
            merged = json.dumps(json.loads(known) | told, sort_keys=True)
            connection.execute(RUNS.update().where(RUNS.c.run_id == run_id).values(facts=merged))

    # -- outbox --------------------------------------------------------------------------------------------------

    def post(
        self,
        run_id: str,
        attempt: int,
        message_id: str,
        body: dict[str, str],
        *,
        open_stage: str | None = None,
        last: bool = False,
    ) -> bool:
        """Put a message in the outbox and its status into the run, in one transaction.

        False when this run said it before in this attempt, or has said its last message: nothing is changed then.
        """
        with self.transaction() as connection:
            # FOR UPDATE, which SQLite has no need of: the reconciler may be saying the last message just now.
            ended = sa.select(RUNS.c.ended_at).where(RUNS.c.run_id == run_id).with_for_update()
            if connection.execute(ended).scalar_one_or_none() is not None:
                return False
            if not insert_new(connection, OUTBOX, _letter_row(run_id, attempt, message_id, body)):
                return False
            news: dict[str, Any] = {"status": body["status"], "open_stage": open_stage}
            connection.execute(
                RUNS.update()
                .where(RUNS.c.run_id == run_id)
                .values(**news, **({"ended_at": time.time()} if last else {}))
            )
            return True

    def unsent(self, limit: int = 50) -> list[Letter]:
        """The oldest messages that the broker has not confirmed, in their order."""
        query = sa.select(OUTBOX).where(OUTBOX.c.sent_at.is_(None)).order_by(OUTBOX.c.seq).limit(limit)
        with self.transaction() as connection:
            return [_letter(row) for row in connection.execute(query)]

    def letters_of(self, run_id: str) -> list[Letter]:
        """Every message of a run, in order."""
        query = sa.select(OUTBOX).where(OUTBOX.c.run_id == run_id).order_by(OUTBOX.c.seq)
        with self.transaction() as connection:
            return [_letter(row) for row in connection.execute(query)]

    def sent(self, seq: int) -> None:
        """The broker confirmed this message."""
        with self.transaction() as connection:
            connection.execute(OUTBOX.update().where(OUTBOX.c.seq == seq).values(sent_at=time.time(), error=None))

    def unsendable(self, seq: int, error: str) -> None:
        """Sending failed for now; the message keeps its place."""
        with self.transaction() as connection:
            connection.execute(
                OUTBOX.update()
                .where(OUTBOX.c.seq == seq)
                .values(tries=OUTBOX.c.tries + 1, error=printable(error)[:500])
            )

    def counts(self) -> dict[str, int]:
        """How many changes stand under each decision, how many runs there are, and messages sent and unsent."""
        with self.transaction() as connection:
            decided = connection.execute(sa.select(CHANGES.c.decision, sa.func.count()).group_by(CHANGES.c.decision))
            counted = {str(decision): int(count) for decision, count in decided}
            counted["runs"] = connection.execute(sa.select(sa.func.count()).select_from(RUNS)).scalar_one()
            sent = sa.select(sa.func.count(OUTBOX.c.sent_at), sa.func.count())
            counted["sent"], every = connection.execute(sent).one()
            counted["unsent"] = every - counted["sent"]
        return counted


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except DatabaseError as broken:
        raise InfrastructureError(
            f"the ledger cannot be used: {broken.orig}", hint="is its disk full, or DISTGATE_LEDGER_URL wrong?"
        ) from broken


def _of(key: str, pipeline: Pipeline) -> sa.ColumnElement[bool]:
    """The row of one change in one pipeline."""
    return sa.and_(CHANGES.c.key == key, CHANGES.c.pipeline == pipeline)


def _change_row(change: Change, decision: Decision) -> dict[str, Any]:
    return {
        "key": change.key,
        "pipeline": decision.pipeline,
        "change": change.model_dump_json(),
        "decision": decision.decision,
        "reason": decision.reason,
        "rule": decision.rule,
        "head": decision.head,
        "accepted_at": time.time(),
    }


def _letter_row(run_id: str, attempt: int, message_id: str, body: dict[str, str]) -> dict[str, Any]:
    return {
        "message_id": message_id,
        "run_id": run_id,
        "topic": body["topic"],
        "attempt": attempt,
        "body": json.dumps(body, sort_keys=True),
        "created_at": time.time(),
    }


def _letter(row: Row[Any]) -> Letter:
    return Letter(
        seq=row.seq,
        message_id=row.message_id,
        topic=row.topic,
        body=json.loads(row.body),
        created_at=row.created_at,
        sent_at=row.sent_at,
        tries=row.tries,
        error=row.error,
    )


def _run(row: Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        change=Change.model_validate_json(row.change),
        build_url=row.build_url,
        attempt=row.attempt,
        status=row.status,
        open_stage=row.open_stage,
        facts=json.loads(row.facts),
        ended=row.ended_at is not None,
        pipeline=row.pipeline,
    )
