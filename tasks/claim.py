"""The first act of a run: take the change, or learn that another run has it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prefect import get_client, get_run_logger, task
from prefect.runtime import flow_run

from distgate.capsule import FILE, CapsuleFile
from distgate.change import Change
from distgate.run_directory import RunDirectory
from distgate.settings import settings
from distgate.stages import Pipeline
from tasks.artifacts import artifacts_dir, bring
from tasks.resume import find_earlier, take_over
from tasks.stage import announcer, ledger


@dataclass(frozen=True)
class Job:
    """What every stage of one run shares: the change, the pipeline, the site it works with, and its artifacts.

    ``reserve`` is for how many minutes the guest of a failure is held; ``rerun_failed`` asks for blame on red;
    ``koji_task`` is the build to take instead of a new one.
    """

    run_id: str
    attempt: int
    change: Change
    site: str
    room: RunDirectory
    reserve: int = 0
    rerun_failed: bool = False
    pipeline: Pipeline = "allpackages"
    koji_task: int | None = None

    @property
    def holder(self) -> str:
        """Whom leases and locks of this run are for, as others who wait read it."""
        return f"run {self.run_id}, {self.change.title}"

    @property
    def capsule(self) -> CapsuleFile:
        """Where it is written down what the run would need to be done again by hand."""
        return CapsuleFile(self.room.root / FILE)


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
    _end_what_failed(run_id)
    forced = again or earlier is not None
    run = ledger().claim(change, run_id, build_url(run_id), again=forced, pipeline=pipeline)
    if run is None:
        get_run_logger().warning("%s is already held by another run; nothing is done twice", change.key)
        return None
    with get_client(sync_client=True) as client:
        # A run that was started with the name of a branch or a build is called after its commit from now on.
        client.update_flow_run(UUID(run_id), name=change.title, tags={*flow_run.tags, *tags_of(change, pipeline)})
    if run.attempt > 1:  # maybe on another host than before
        bring(own_site, run_id)
    room = RunDirectory(artifacts_dir() / run_id, settings().artifacts_url)
    rerun = settings().rerun_failed if rerun_failed is None else rerun_failed
    job = Job(run_id, run.attempt, change, own_site, room, reserve, rerun, pipeline, koji_task)
    job.capsule.begin(run_id, run.build_id, job.site, change, pipeline)
    if earlier is not None:
        take_over(ledger(), run_id, job.capsule, earlier, start_from)
    return job


def _end_what_failed(run_id: str) -> None:
    # A retry of a run that said FAILURE and died before its last message: that is said now, and a new set begins.
    run = ledger().run(run_id)
    if run is not None and not run.ended and run.status != "SUCCESS":
        announcer().close(run_id)


def build_url(run_id: str) -> str:
    """The page of a run in the Prefect UI."""
    return f"{settings().ui_url.rstrip('/')}/runs/flow-run/{run_id}"


def tags_of(change: Change, pipeline: Pipeline = "allpackages") -> list[str]:
    """What a run is found by in the UI."""
    return [pipeline, change.namespace, change.repo, change.branch, change.rev]
