"""Packages of a branch are tested again without a push: what they are built and tested with has changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from distgate.changes.retest import RetestFilter, rows_of, sentence_of
from distgate.pipelines import Pipeline
from distgate.settings import settings
from tasks.operations.retest import RetestScope, choose_packages, start_runs

_EVERY_PACKAGE = RetestFilter()


@flow(name="retest-rawhide", flow_run_name="retest {branch}")
def retest_rawhide(
    wish: RetestFilter = _EVERY_PACKAGE,
    dry_run: bool = False,
    branch: str = "rawhide",
    namespace: str = "rpms",
    names_file: str = "",
    site: str | None = None,
    pipeline: Pipeline = "allpackages",
) -> State[Any]:
    """Test the latest commit of packages again, spread over a window; results in the table of what becomes of each.

    Args:
        wish: Which packages.
        dry_run: Whether nothing is started: the table says what would be.
        branch: The branch whose latest commits are tested.
        namespace: The dist-git namespace of the packages.
        names_file: A file on the worker with one package's name per line, beside the packages that the ledger knows.
        site: The name of the block documents to work with; the worker's own by default.
        pipeline: The pipeline to test with.
    """
    start = flow_run.scheduled_start_time or datetime.now(UTC)
    names = Path(names_file) if names_file else None
    scope = RetestScope(namespace, branch, pipeline, site or settings().site, names)
    choices = choose_packages(scope, wish, start)
    if not dry_run:
        start_runs(scope, wish, choices, start)
    sentence = f"{sentence_of(choices)} (dry run: none is started)" if dry_run else sentence_of(choices)
    return Completed(message=sentence, data=rows_of(choices))
