"""Two stages; the disk of the ledger fills up in the first. Run by test_faults_stage in a process of its own."""

import sys
from pathlib import Path
from typing import Any

from fault_site import fill
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.changes.change import Change
from distgate.pipelines import STAGES
from tasks.claim import claim_change
from tasks.run.job import Job
from tasks.run.stage import end_of_run, stage

CHANGE = Change(namespace="rpms", repo="tiny", rev="cd" * 20, branch="f41", username="jane")


@stage(STAGES["allpackages"]["package"])
def build(job: Job, disk: str) -> str:
    if not (Path(disk) / "filled").exists():
        (Path(disk) / "filled").touch()
        fill(Path(disk))
    return "built"


@stage(STAGES["allpackages"]["package.test.functional"])
def functional(job: Job) -> str:
    return "tested"


@flow(name="full-disk", on_completion=[end_of_run], on_failure=[end_of_run])
def full_disk(disk: str) -> State[Any]:
    job = claim_change(CHANGE, "lab", False)
    assert job
    build(job, disk)
    functional(job)
    return Completed()


if __name__ == "__main__":
    full_disk(sys.argv[1])
