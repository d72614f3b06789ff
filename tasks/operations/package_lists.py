"""Refresh the list that says which packages a branch of Atomic Host is made of."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task

from blocks.ostree_repo import OSTreeRepo
from distgate.errors import ConfigurationError
from distgate.ostree.sources import refresh
from distgate.settings import settings
from tasks.run.stage import is_infrastructure


def lists_directory() -> Path:
    """Where the lists are on this host. Raises ConfigurationError when nothing says so."""
    directory = settings().package_lists
    if directory is None:
        raise ConfigurationError("there are no package lists", hint="DISTGATE_PACKAGE_LISTS names their directory")
    return directory


@task(
    name="Refresh package list",
    task_run_name="refresh {branch}",
    retries=3,
    retry_delay_seconds=300,
    retry_condition_fn=is_infrastructure,
)
def refresh_list(branch: str, site: str | None) -> int:
    """How many lines the branch's list has afterwards."""
    treefile, repositories = OSTreeRepo.of(site or settings().site).recipe(branch)
    refreshed = refresh(lists_directory(), branch, treefile, repositories, get_run_logger().info)
    get_run_logger().info("%s: %d lines", refreshed.path, len(refreshed.patterns))
    return len(refreshed.patterns)
