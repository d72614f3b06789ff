"""What the audit and ``distgate why`` read from the ledger; nothing here writes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from distgate.bus.announce import trigger_id
from distgate.changes.change import Change
from distgate.errors import ConfigurationError
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import OutboxMessage, Run
from distgate.ledger.tables import CHANGES, OUTBOX, REJECTIONS, RUNS
from distgate.operations.audit import LedgerSnapshot, OutboxEntry, RunEntry, Trigger
from distgate.pipelines import Pipeline


def ledger_snapshot(ledger: Ledger, since: float = 0.0) -> LedgerSnapshot:
    """The records since ``since`` (seconds since the epoch), all as they were at one moment.

    A change or a run that began before is left out with its messages; what waits for the broker never is.
    """
    with ledger.transaction() as connection:
        if connection.dialect.name == "postgresql":
            # Its usual transactions see in each query what was committed since the one before.
            connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        triggers = connection.execute(sa.select(CHANGES).where(CHANGES.c.accepted_at >= since)).all()
        runs = connection.execute(sa.select(RUNS).where(RUNS.c.claimed_at >= since)).all()
        messages = connection.execute(sa.select(OUTBOX).order_by(OUTBOX.c.seq)).all()
        rejected = _rejected(connection, since)
    entries = [
        Trigger(row.key, row.decision, row.seen, row.accepted_at, row.offered_at, row.run_id, row.pipeline)
        for row in triggers
    ]
    senders = {row.run_id for row in runs} | {entry.announced_as for entry in entries}
    return LedgerSnapshot(
        triggers=entries,
        runs=[
            RunEntry(row.run_id, row.key, row.attempt, row.status, row.beat_at, row.ended_at, row.pipeline)
            for row in runs
        ],
        messages=[_message(row) for row in messages if not since or row.run_id in senders or row.sent_at is None],
        rejected=rejected,
        whole=not since,
    )


def _rejected(connection: Connection, since: float) -> int:
    where = sa.and_(REJECTIONS.c.last_at >= since, REJECTIONS.c.requeued_at.is_(None))
    total = sa.select(sa.func.coalesce(sa.func.sum(REJECTIONS.c.seen), 0)).where(where)
    return int(connection.execute(total).scalar_one())


def _message(row: Row[Any]) -> OutboxEntry:
    body = json.loads(row.body)
    return OutboxEntry(
        seq=row.seq,
        message_id=row.message_id,
        run_id=row.run_id,
        attempt=row.attempt,
        topic=row.topic,
        status=body["status"],
        build_id=body["build_id"],
        created_at=row.created_at,
        sent_at=row.sent_at,
        tries=row.tries,
        error=row.error,
    )


@dataclass(frozen=True)
class ChangeReport:
    """All that the ledger knows of one change in one pipeline; ``announced`` are the messages that say that no run
    answers it."""

    change: Change
    pipeline: Pipeline
    decision: str
    rule: str
    reason: str
    seen: int
    accepted_at: float
    offered_at: float | None
    announced: tuple[OutboxMessage, ...]
    runs: tuple[tuple[Run, tuple[OutboxMessage, ...]], ...]


def change_reports(ledger: Ledger, repo: str, rev: str) -> list[ChangeReport]:
    """What became of a commit, once per branch and pipeline, oldest first; empty when the ledger does not know it.

    ``repo`` may carry its namespace (rpms/bash), ``rev`` may be the beginning of a commit's hash.
    """
    namespace, _, name = repo.rpartition("/")
    with ledger.transaction() as connection:
        key = CHANGES.c.key
        query = sa.select(CHANGES).where(key.contains(f"/{name}@", autoescape=True))
        query = query.where(key.contains(f"#{rev}", autoescape=True)).order_by(CHANGES.c.accepted_at)
        rows = [(row, Change.model_validate_json(row.change)) for row in connection.execute(query)]
    return [
        _change_report(ledger, row, change)
        for row, change in rows
        if change.repo == name and change.rev.startswith(rev) and namespace in ("", change.namespace)
    ]


def run_of(ledger: Ledger, beginning: str) -> Run:
    """The run whose ID begins so, with its change and its pipeline.

    Raises ConfigurationError when the ledger has no such run, or several.
    """
    with ledger.transaction() as connection:
        query = sa.select(RUNS.c.run_id).where(RUNS.c.run_id.startswith(beginning, autoescape=True))
        run_ids = list(connection.scalars(query.order_by(RUNS.c.claimed_at.desc()).limit(20)))
    if len(run_ids) > 1:
        raise ConfigurationError(
            f"several runs begin with {beginning}", hint="give more of the ID", evidence="\n".join(run_ids)
        )
    run = ledger.run(run_ids[0]) if run_ids else None
    if run is None:
        raise ConfigurationError(
            f"the ledger knows no run {beginning}", hint="`distgate why REPO REV` lists the runs of a commit"
        )
    return run


def is_revision(text: str) -> bool:
    """Whether ``text`` can be a commit's hash or the beginning of one."""
    return re.fullmatch("[0-9a-f]{4,40}", text) is not None


def _change_report(ledger: Ledger, row: Row[Any], change: Change) -> ChangeReport:
    return ChangeReport(
        change=change,
        pipeline=row.pipeline,
        decision=row.decision,
        rule=row.rule,
        reason=row.reason,
        seen=row.seen,
        accepted_at=row.accepted_at,
        offered_at=row.offered_at,
        announced=tuple(ledger.messages_of(trigger_id(change.key, row.pipeline))),
        runs=tuple((run, tuple(ledger.messages_of(run.run_id))) for run in ledger.runs_of(change.key, row.pipeline)),
    )
