"""Tests packages again without a push: gathers what is known of them and plans the runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact

from blocks import DistGit
from distgate.builds.heads import CommitFactsCache, heads
from distgate.changes.change import Change
from distgate.changes.retest import (
    Candidate,
    Choice,
    RetestFilter,
    choose,
    packages_of,
    rows_of,
    sentence_of,
    window_key,
)
from distgate.errors import ConfigurationError
from distgate.ledger.last_runs import known_packages, last_runs
from distgate.pipelines import RAWHIDE, Pipeline
from distgate.prefect_api import PrefectApi
from distgate.settings import settings
from tasks.operations.ledger import open_ledger

#: The cache of facts about commits, below the directory of artifacts.
COMMIT_CACHE = "commits.json"
#: Rawhide is called rawhide today, and was called after git's own usage before.
_RAWHIDE_NAMES = ("rawhide", "main", "master")


@dataclass(frozen=True)
class RetestScope:
    """Where to look for packages: the branch of a namespace, the pipeline to test with, and ``names``, a file with
    one package's name per line beside those that the ledger knows."""

    namespace: str
    branch: str
    pipeline: Pipeline
    site: str
    names: Path | None = None

    @property
    def branches(self) -> tuple[str, ...]:
        return _RAWHIDE_NAMES if self.branch in RAWHIDE else (self.branch,)


@task(name="Choose packages", retries=2, retry_delay_seconds=10)
def choose_packages(scope: RetestScope, retest_filter: RetestFilter, start: datetime) -> list[Choice]:
    """What becomes of each package that the filter selects, when the window opens at ``start``."""
    packages = known_packages(open_ledger(), scope.namespace)
    packages |= _names_in(scope.names) if scope.names else set()
    repos = packages_of(retest_filter, packages)
    get_run_logger().info("%d of %d known packages are looked at", len(repos), len(packages))
    choices = choose(retest_filter, candidates(scope, retest_filter, repos), start)
    get_run_logger().info("%s", sentence_of(choices))
    create_table_artifact(rows_of(choices), key="retest", description=sentence_of(choices))
    return choices


def candidates(scope: RetestScope, retest_filter: RetestFilter, repos: Sequence[str]) -> list[Candidate]:
    """The packages with their latest commits and last runs; their commits are fetched only when needed."""
    site = DistGit.of(scope.site)
    addresses = {repo: site.address(_change(scope, repo, "0" * 40, scope.branch)) for repo in repos}
    branch_heads = heads(addresses, scope.branches)
    commits = {repo: (addresses[repo], head.rev) for repo, head in branch_heads.items() if head.rev}
    cache = CommitFactsCache(settings().artifacts_dir / COMMIT_CACHE)
    facts = cache.facts(commits) if retest_filter.needs_commits else {}
    last = last_runs(open_ledger(), scope.namespace, scope.branch, scope.pipeline)
    return [
        Candidate(repo, head.rev, head.branch, head.problem, facts.get(repo), last.get(repo))
        for repo, head in branch_heads.items()
    ]


@task(name="Start runs", retries=2, retry_delay_seconds=10)
def start_runs(scope: RetestScope, retest_filter: RetestFilter, choices: Sequence[Choice], start: datetime) -> int:
    """Start a re-run of each chosen package at its time, and count them; none of this window is repeated."""
    chosen = [choice for choice in choices if choice.at]
    deployment = settings().manual_deployment_of(scope.pipeline)
    with PrefectApi(settings().prefect_api_url) as prefect:
        for choice in chosen:
            change = _change(scope, choice.repo, choice.rev, choice.branch)
            prefect.create_flow_run(
                deployment,
                {"change": change.model_dump(), "site": scope.site, "again": True},
                idempotency_key=window_key(choice, start, retest_filter.window_minutes),
                tags=["retest"],
                at=choice.at,
            )
    get_run_logger().info("%d runs of %s wait for their time", len(chosen), deployment)
    return len(chosen)


def _change(scope: RetestScope, repo: str, rev: str, branch: str) -> Change:
    return Change(namespace=scope.namespace, repo=repo, rev=rev, branch=branch, username="distgate", summary="retest")


def _names_in(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read the list of packages {path}: {error}", hint="names_file is a path on the worker"
        ) from error
    return {name for line in lines if (name := line.partition("#")[0].strip())}
