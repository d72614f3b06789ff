"""The ledger: accepted changes, the runs that claimed them, and the outbox, in one database.

The bus and Prefect's events deliver at least once at best and sometimes not at all; the ledger is what is true.
A change stands here once for each pipeline that decided about it, before Prefect or the bus hears of it; a run claims
it for its pipeline before it works, and a message stands in the outbox before it is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from distgate.changes.change import Change
from distgate.changes.rules import SETTLING
from distgate.changes.triage import Decision
from distgate.errors import InfrastructureError
from distgate.ledger.database import insert_new, open_engine
from distgate.ledger.runs import Acceptance, OutboxMessage, Run, RunFacts
from distgate.ledger.tables import CHANGES, OUTBOX, RUNS
from distgate.pipelines import Pipeline
from distgate.text import printable

#: Runs with the change that each of them holds.
_RUNS = sa.select(RUNS, CHANGES.c.change).select_from(RUNS.join(CHANGES))


class Ledger:
    """One connection pool on the ledger's database; every method is one transaction and safe to repeat.

    The tables are made when there are none. Raises ConfigurationError for a ledger of another schema or a URL that
    names none, InfrastructureError when the database cannot be used.
    """

    def __init__(self, url: str) -> None:
        with _reported():
            self._engine = open_engine(url)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open one transaction on the tables (distgate.ledger.tables); an exception rolls it back.

        Raises InfrastructureError when it cannot be opened. On SQLite it waits for other writers from its beginning;
        on PostgreSQL the rows that are about to be changed are locked by ``with_for_update``, which SQLite ignores.
        """
        with _reported(), self._engine.begin() as connection:
            yield connection

    # -- changes -------------------------------------------------------------------------------------------------

    def record(self, change: Change, decision: Decision, *, counted: bool = False) -> Acceptance:
        """Record a decided change for the pipeline of the decision; a repeat is only counted, once unless ``counted``
        says that it was."""
        this_change = _of(change.key, decision.pipeline)
        with self.transaction() as connection:
            while True:
                if insert_new(connection, CHANGES, _change_row(change, decision)):
                    return Acceptance(change.key, True, decision.decision, rule=decision.rule)
                if not counted:
                    connection.execute(CHANGES.update().where(this_change).values(seen=CHANGES.c.seen + 1))
                row = connection.execute(sa.select(CHANGES).where(this_change)).one_or_none()
                if row is not None:  # else it was there, and has been forgotten since: once more
                    break
            offered = row.offered_at is not None or row.run_id is not None
            return Acceptance(change.key, False, row.decision, offered, row.rule)

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
            times = [connection.execute(earliest.where(CHANGES.c.key.in_(part))).scalar() for part in parts]
        return min((time_accepted for time_accepted in times if time_accepted is not None), default=time.time())

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
        now = time.time()
        row = {"run_id": run_id, "key": change.key, "pipeline": pipeline, "build_url": build_url, "attempt": 1}
        row |= {"status": "SUCCESS", "facts": "{}", "claimed_at": now, "beat_at": now}
        with self.transaction() as connection:
            if not _hold(connection, change, run_id, pipeline, again):
                return None
            if not insert_new(connection, RUNS, row):
                _reopen(connection, run_id)
            return _run_of(connection, run_id)

    def run(self, run_id: str) -> Run | None:
        """The run, None when the ledger has no such run."""
        with self.transaction() as connection:
            return _run_of(connection, run_id)

    def heartbeat(self, run_id: str, attempt: int) -> bool:
        """Record that the run is alive; False when it was given up, or another attempt of it has begun."""
        this_attempt = sa.and_(RUNS.c.run_id == run_id, RUNS.c.attempt == attempt, RUNS.c.ended_at.is_(None))
        with self.transaction() as connection:
            return connection.execute(RUNS.update().where(this_attempt).values(beat_at=time.time())).rowcount == 1

    def without_heartbeat(self, seconds: float) -> list[Run]:
        """Runs without a last message whose last heartbeat is more than ``seconds`` old."""
        quiet = sa.and_(RUNS.c.ended_at.is_(None), RUNS.c.beat_at < time.time() - seconds)
        with self.transaction() as connection:
            return [_run(row) for row in connection.execute(_RUNS.where(quiet))]

    def runs_of(self, key: str, pipeline: Pipeline = "allpackages") -> list[Run]:
        """Every run of ``pipeline`` that ever held the change, oldest first."""
        query = _RUNS.where(RUNS.c.key == key, RUNS.c.pipeline == pipeline).order_by(RUNS.c.claimed_at)
        with self.transaction() as connection:
            return [_run(row) for row in connection.execute(query)]

    def record_facts(self, run_id: str, facts: RunFacts) -> None:
        """Add facts to those of a run, for every later message; of texts, what people can read."""
        # Strangers wrote some of them, and PostgreSQL reads no JSON with a NUL or half a character in it.
        readable = {name: printable(fact) for name, fact in facts.flat().items()}
        this_run = RUNS.c.run_id == run_id
        with self.transaction() as connection:
            facts_text = connection.execute(
                sa.select(RUNS.c.facts).where(this_run).with_for_update()
            ).scalar_one_or_none()
            if facts_text is None:
                raise LookupError(f"the ledger has no run {run_id}")
            merged = json.dumps(json.loads(facts_text) | readable, sort_keys=True)
            connection.execute(RUNS.update().where(this_run).values(facts=merged))

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

        False when this attempt of the run has sent it before, or has sent its last message: nothing is changed then.
        """
        now = time.time()
        row = {"message_id": message_id, "run_id": run_id, "topic": body["topic"], "attempt": attempt}
        row |= {"body": json.dumps(body, sort_keys=True), "created_at": now}
        state = {"status": body["status"], "open_stage": open_stage, **({"ended_at": now} if last else {})}
        this_run = RUNS.c.run_id == run_id
        with self.transaction() as connection:
            # Locked: the reconciler may be sending the last message just now.
            run = connection.execute(sa.select(RUNS.c.ended_at).where(this_run).with_for_update()).one_or_none()
            if run is not None and run.ended_at is not None:
                return False
            if not insert_new(connection, OUTBOX, row):
                return False
            connection.execute(RUNS.update().where(this_run).values(**state))
            return True

    def unsent(self, limit: int = 50) -> list[OutboxMessage]:
        """The oldest messages that the broker has not confirmed, in their order."""
        return self._messages(sa.select(OUTBOX).where(OUTBOX.c.sent_at.is_(None)).limit(limit))

    def messages_of(self, run_id: str) -> list[OutboxMessage]:
        """Every message of a run, in order."""
        return self._messages(sa.select(OUTBOX).where(OUTBOX.c.run_id == run_id))

    def sent(self, seq: int) -> None:
        """Record that the broker confirmed this message."""
        with self.transaction() as connection:
            connection.execute(OUTBOX.update().where(OUTBOX.c.seq == seq).values(sent_at=time.time(), error=None))

    def unsendable(self, seq: int, error: str) -> None:
        """Record that sending failed for now; the message keeps its place."""
        with self.transaction() as connection:
            connection.execute(
                OUTBOX.update()
                .where(OUTBOX.c.seq == seq)
                .values(tries=OUTBOX.c.tries + 1, error=printable(error)[:500])
            )

    def counts(self) -> dict[str, int]:
        """How many changes have each decision, how many runs there are, and messages sent and unsent."""
        with self.transaction() as connection:
            decided = connection.execute(sa.select(CHANGES.c.decision, sa.func.count()).group_by(CHANGES.c.decision))
            counted = {str(decision): int(count) for decision, count in decided}
            counted["runs"] = connection.execute(sa.select(sa.func.count()).select_from(RUNS)).scalar_one()
            sent = sa.select(sa.func.count(OUTBOX.c.sent_at), sa.func.count())
            counted["sent"], every = connection.execute(sent).one()
            counted["unsent"] = every - counted["sent"]
        return counted

    def _messages(self, query: sa.Select[Any]) -> list[OutboxMessage]:
        with self.transaction() as connection:
            return [message_of(row) for row in connection.execute(query.order_by(OUTBOX.c.seq))]


def message_of(row: Row[Any]) -> OutboxMessage:
    """A row of the outbox as a record."""
    body = json.loads(row.body)
    return OutboxMessage(row.seq, row.message_id, row.topic, body, row.created_at, row.sent_at, row.tries, row.error)


def _hold(connection: Connection, change: Change, run_id: str, pipeline: Pipeline, again: bool) -> bool:
    """Record that the run holds the change; False when another one does."""
    this_change = _of(change.key, pipeline)
    free = (
        this_change if again else sa.and_(this_change, sa.or_(CHANGES.c.run_id.is_(None), CHANGES.c.run_id == run_id))
    )
    by_hand = Decision("queued", "started by hand", "manual", pipeline, change)
    while True:
        # A run is no push: it is not counted as one more of them.
        insert_new(connection, CHANGES, _change_row(change, by_hand))
        if connection.execute(CHANGES.update().where(free).values(run_id=run_id)).rowcount:
            return True
        if connection.execute(sa.select(CHANGES.c.key).where(this_change)).first():
            return False
        # It was there, and has been forgotten since: once more.


def _reopen(connection: Connection, run_id: str) -> None:
    update = RUNS.update().where(RUNS.c.run_id == run_id)
    connection.execute(update.values(beat_at=time.time()))
    # A run that sent its last message begins a new set of messages; its facts stay true.
    fresh = {"attempt": RUNS.c.attempt + 1, "status": "SUCCESS", "ended_at": None, "open_stage": None}
    connection.execute(update.where(RUNS.c.ended_at.is_not(None)).values(**fresh))


def _run_of(connection: Connection, run_id: str) -> Run | None:
    row = connection.execute(_RUNS.where(RUNS.c.run_id == run_id)).one_or_none()
    return _run(row) if row else None


def _run(row: Row[Any]) -> Run:
    return Run(
        run_id=row.run_id,
        change=Change.model_validate_json(row.change),
        build_url=row.build_url,
        attempt=row.attempt,
        status=row.status,
        open_stage=row.open_stage,
        facts=RunFacts.from_column(row.facts),
        ended=row.ended_at is not None,
        pipeline=row.pipeline,
    )


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise InfrastructureError(
            f"the ledger cannot be used: {error.orig}", hint="is its disk full, or DISTGATE_LEDGER_URL wrong?"
        ) from error


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
