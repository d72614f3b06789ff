"""The ledger: accepted changes, the runs that claimed them, and the outbox, in one database.

The bus and Prefect's events deliver at least once at best and sometimes not at all; the ledger is what is true.
A change stands here once for each pipeline that decided about it, before anybody is told of it; a run claims it for
its pipeline before it works, and a message stands in the outbox before it is sent. SQLAlchemy on a URL: SQLite in WAL
mode on one host, PostgreSQL beyond (notes: prefect, section 10).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DatabaseError

from distgate.changes.change import Change
from distgate.changes.rules import SETTLING
from distgate.changes.triage import Decision
from distgate.ledger.connections import unusable
from distgate.ledger.runs import OutboxMessage, Run, RunLedger, Statements
from distgate.ledger.tables import CHANGES, OUTBOX, RUNS, insert_new, open_engine
from distgate.pipelines import Pipeline
from distgate.text import printable

__all__ = ["Acceptance", "Ledger", "OutboxMessage", "Run"]


@dataclass(frozen=True)
class Acceptance:
    """What the ledger says of a decided change: ``new`` is False when it stood there before, ``offered`` is
    True once Prefect was told of it or a run has claimed it. ``decision`` and ``rule`` are those that stand there."""

    key: str
    new: bool
    decision: str
    offered: bool = False
    rule: str = ""


class _Statements:
    """SQL on a connection of SQLAlchemy: distgate.ledger.runs.Statements."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.locking = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"

    def rows(self, sql: str, **values: Any) -> Sequence[Sequence[Any]]:
        return self._connection.execute(sa.text(sql), values).all()

    def changed(self, sql: str, **values: Any) -> int:
        return self._connection.execute(sa.text(sql), values).rowcount


class Ledger(RunLedger):
    """One connection pool on the ledger's database; every method is one transaction and safe to repeat.

    What runs do is in RunLedger; this adds what services and commands do.
    """

    def __init__(self, url: str) -> None:
        with _reported():
            self._engine: Engine = open_engine(url)

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction on the tables of distgate.ledger.tables; InfrastructureError when it cannot be had."""
        with _reported(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def statements(self) -> Iterator[Statements]:
        """See RunLedger."""
        with self.transaction() as connection:
            yield _Statements(connection)

    # -- changes -------------------------------------------------------------------------------------------------

    def record(self, change: Change, decision: Decision, *, counted: bool = False) -> Acceptance:
        """Write a decided change down for the pipeline of the decision; a repeat is counted (unless it was
        ``counted``), no more."""
        mine = _of(change.key, decision.pipeline)
        with self.transaction() as connection:
            while True:
                if insert_new(connection, CHANGES, _change_row(change, decision)):
                    return Acceptance(change.key, True, decision.decision, rule=decision.rule)
                if not counted:
                    connection.execute(CHANGES.update().where(mine).values(seen=CHANGES.c.seen + 1))
                known = connection.execute(sa.select(CHANGES).where(mine)).one_or_none()
                if known is not None:  # else it was there, and has been forgotten since: once more
                    break
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

    # -- outbox --------------------------------------------------------------------------------------------------

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
    except DatabaseError as error:
        raise unusable(error.orig) from error


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
