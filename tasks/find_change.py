"""Runs that people start: finds the change that they name by a branch, a commit or a build."""

from __future__ import annotations

from typing import Any

from prefect import get_run_logger, task

from blocks import DistGit, KojiInstance
from distgate.changes.change import Change
from distgate.changes.retrigger import ResolvedRequest, RunRequest, change_of
from distgate.settings import settings


def _once_per_run(context: Any, _parameters: dict[str, Any]) -> str:
    # A retry is about the same commit, though the branch may have got another head.
    return f"{context.task_run.flow_run_id}-{context.task.name}"


@task(name="Find change", persist_result=True, cache_key_fn=_once_per_run)
def find_change(request: RunRequest, site: str | None) -> ResolvedRequest:
    """The change that ``request`` means on a site's dist-git and Koji. Raises what retrigger.change_of raises."""
    from distgate.builds.lookup import SiteLookup

    site = site or settings().site
    url, koji = DistGit.of(site).url, KojiInstance.of(site)
    lookup = SiteLookup(lambda namespace, repo: url.format(namespace=namespace, repo=repo), koji.profile())
    resolved = change_of(request, lookup, settings())
    build = f", with the packages of Koji task {resolved.koji_task}" if resolved.koji_task else ""
    get_run_logger().info("what is tested: %s%s", resolved.change.key, build)
    return resolved


def resolve_request(requested: Change | RunRequest, site: str | None) -> ResolvedRequest:
    """The change that a run tests; one that is given in full needs no task and no lookup."""
    return ResolvedRequest(requested) if isinstance(requested, Change) else find_change(requested, site)
