"""Two of our stages, of which the second fails while a file is there: run by test_resumed_run."""

import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.changes.change import Change
from distgate.errors import PackageError
from distgate.ledger.runs import RunFacts
from distgate.pipelines import STAGES
from tasks.claim import claim_change
from tasks.run.job import Job
from tasks.run.stage import end_of_run, ledger, stage

CHANGE = Change(namespace="rpms", repo="tiny", rev="cd" * 20, branch="f41", username="jane")


@stage(STAGES["allpackages"]["package"])
def build(job: Job, room: Path) -> str:
    with (room / "builds").open("a") as builds:
        builds.write("x")
    ledger().record_facts(job.run_id, RunFacts(nvr="tiny-1-1.fc41", original_spec_nvr="tiny-1-1.fc41"))
    return f"built by {job.run_id}"


@stage(STAGES["allpackages"]["image"])
def compose(job: Job, built: str, room: Path) -> str:
    if (room / "broken").exists():
        raise PackageError("it cannot be installed")
    (room / "composed").write_text(built)
    return "composed"


@flow(name="resumed", on_completion=[end_of_run], on_failure=[end_of_run])
def resumed(room: Path, start_from: str) -> State[Any]:
    job = claim_change(CHANGE, "lab", False, start_from=start_from)
    if job is None:
        return Completed(name="Duplicate")
    compose(job, build(job, room), room)
    return Completed()


if __name__ == "__main__":
    resumed(Path(sys.argv[1]), sys.argv[2])
