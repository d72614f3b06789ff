"""What the ledger knows of a branch's packages: which there are, and how the last run of each ended."""

from __future__ import annotations

import sqlalchemy as sa

from distgate.changes.retest import LastRun
from distgate.ledger.database import starts_with
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import CHANGES, RUNS
from distgate.pipelines import RAWHIDE, Pipeline


def known_packages(ledger: Ledger, namespace: str) -> set[str]:
    """Every package of a namespace that a push or a run was ever about."""
    query = sa.select(CHANGES.c.key).distinct().where(starts_with(CHANGES.c.key, f"{namespace}/"))
    with ledger.transaction() as connection:
        keys = connection.execute(query).scalars()
        return {key.removeprefix(f"{namespace}/").partition("@")[0] for key in keys}


def last_runs(ledger: Ledger, namespace: str, branch: str, pipeline: Pipeline = "allpackages") -> dict[str, LastRun]:
    """The latest run of each package's branch, under the package's name. Rawhide has three names, and is one."""
    names = RAWHIDE if branch in RAWHIDE else {branch}
    in_namespace = sa.and_(RUNS.c.pipeline == pipeline, starts_with(RUNS.c.key, f"{namespace}/"))
    query = sa.select(RUNS.c.key, RUNS.c.status, RUNS.c.ended_at).where(in_namespace).order_by(RUNS.c.claimed_at)
    last_runs: dict[str, LastRun] = {}
    with ledger.transaction() as connection:
        for key, status, ended in connection.execute(query):
            repo, _, rest = key.removeprefix(f"{namespace}/").partition("@")
            on, _, rev = rest.rpartition("#")
            if on in names:
                last_runs[repo] = LastRun(rev, status, ended)
    return last_runs
