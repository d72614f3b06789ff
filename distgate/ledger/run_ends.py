"""Since when the files of a run are needed no more: its end, or that of the last run that took its results over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import RunFacts
from distgate.ledger.tables import RUNS

#: How a run is named where it holds something for others to read (tasks.claim.Job.holder).
_HOLDER = re.compile(r"run ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


def holder_has_ended(ledger: Ledger, holder: str) -> bool:
    """Whether the run of a lock or lease has ended, or is forgotten; False when no run holds it but a
    person, by hand."""
    match = _HOLDER.match(holder)
    if match is None:
        return False
    run = ledger.run(match[1])
    return run is None or run.ended


def ends_of_runs(ledger: Ledger, run_ids: Sequence[str]) -> dict[str, float | None]:
    """When those of the runs ended that the ledger knows (epoch seconds), None for one that goes on.

    A run from which another one took results has not ended before that one: a retry of that one takes them again.
    """
    ends: dict[str, float | None] = {}
    with ledger.transaction() as connection:
        for start in range(0, len(run_ids), 500):  # SQLite bounds its variables
            part = run_ids[start : start + 500]
            query = sa.select(RUNS.c.run_id, RUNS.c.ended_at).where(RUNS.c.run_id.in_(part))
            ends |= {row.run_id: row.ended_at for row in connection.execute(query)}
        for run_id, ended in _taken_over(connection):
            before = ends.get(run_id)
            if before is not None:
                ends[run_id] = None if ended is None else max(before, ended)
    return ends


def _taken_over(connection: Connection) -> Iterator[tuple[str, float | None]]:
    """Runs whose results another run took over, with the end of that one."""
    query = sa.select(RUNS.c.facts, RUNS.c.ended_at).where(RUNS.c.facts.contains('"result of '))
    for row in connection.execute(query):
        for result in RunFacts.from_column(row.facts).results.values():
            yield result, row.ended_at
