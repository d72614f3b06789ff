"""The first act of a run: claim the change, unless another run holds it."""

from __future__ import annotations

from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.runtime import flow_run

from distgate.changes.change import Change
from distgate.pipelines import Pipeline
from distgate.runs.directory import RunDirectory
from distgate.settings import settings
from tasks.run.artifacts import artifacts_dir, download
from tasks.run.job import Job
from tasks.run.resume import find_earlier, take_over
from tasks.run.stage import announcer, ledger


@task(name="Claim change", retries=3, retry_delay_seconds=5)
def claim_change(
    change: Change,
    site: str | None,
    again: bool,
    reserve: int = 0,
    rerun_failed: bool | None = None,
    pipeline: Pipeline = "allpackages",
    start_from: str = "",
    koji_task: int | None = None,
) -> Job | None:
    """The run's job; None when another run of the pipeline holds the change and neither ``again`` nor ``start_from``
    asks for a re-run. The latter takes the results of the stages before it from the run that was there before."""
    run_id = str(flow_run.id)
    own_site = site or settings().site
    earlier = find_earlier(ledger(), change, pipeline, start_from, run_id, own_site) if start_from else None
    _close_failed_attempt(run_id)
    forced = again or earlier is not None
    run = ledger().claim(change, run_id, build_url(run_id), again=forced, pipeline=pipeline)
    if run is None:
        get_run_logger().warning("%s is already held by another run; nothing is done twice", change.key)
        return None
    with get_client(sync_client=True) as client:
        # A run that was started with the name of a branch or a build is called after its commit from now on.
        client.update_flow_run(UUID(run_id), name=change.title, tags={*flow_run.tags, *tags_of(change, pipeline)})
    if run.attempt > 1:  # maybe on another host than before
        download(own_site, run_id)
    run_dir = RunDirectory(artifacts_dir() / run_id, settings().artifacts_url)
    rerun = settings().rerun_failed if rerun_failed is None else rerun_failed
    job = Job(run_id, run.attempt, change, own_site, run_dir, reserve, rerun, pipeline, koji_task)
    job.record.begin(run_id, run.build_id, job.site, change, pipeline)
    if earlier is not None:
        take_over(ledger(), run_id, job.record, earlier, start_from)
    return job


def _close_failed_attempt(run_id: str) -> None:
    # A retry of a run that announced FAILURE and died before its last message: it goes out now, and a new set begins.
    run = ledger().run(run_id)
    if run is not None and not run.ended and run.status != "SUCCESS":
        announcer().close(run_id)


def build_url(run_id: str) -> str:
    """The page of a run in the Prefect UI."""
    return f"{settings().ui_url.rstrip('/')}/runs/flow-run/{run_id}"


def tags_of(change: Change, pipeline: Pipeline = "allpackages") -> list[str]:
    """The tags by which the UI finds a run."""
    return [pipeline, change.namespace, change.repo, change.branch, change.rev]
