"""Three of our stages, of which the last fails while a file is there: run by test_resumed_elsewhere on two hosts."""

import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.changes.change import Change
from distgate.errors import PackageError
from distgate.pipelines import STAGES
from tasks.claim import claim_change
from tasks.hooks import RUN_HOOKS
from tasks.run.base_images import image_store_id
from tasks.run.job import Job
from tasks.run.stage import stage

CHANGE = Change(namespace="rpms", repo="tiny", rev="cd" * 20, branch="f41", username="jane")
WORLD = Path(sys.argv[1])


def note(word: str, job: Job) -> None:
    with (WORLD / "done").open("a") as done:
        done.write(f"{word} in {image_store_id(job)}\n")


@stage(STAGES["allpackages"]["package"])
def build(job: Job) -> Path:
    note("built", job)
    made = job.run_dir.stage("build") / "tiny.rpm"
    made.write_text("tiny")
    return made


@stage(STAGES["allpackages"]["image"], image_store_id)
def compose(job: Job, built: Path) -> Path:
    note("composed", job)
    made = job.run_dir.stage("image") / "tiny.qcow2"
    made.write_text(f"{built.read_text()} on the base of {image_store_id(job)}")
    return made


@stage(STAGES["allpackages"]["image.test.smoke"], image_store_id)
def boot(job: Job, image: Path) -> None:
    (job.run_dir.stage("smoke") / "console.log").write_text(image.read_text())
    if (WORLD / "broken").exists():
        raise PackageError("it does not boot")
    note("booted", job)


@flow(name="travelling", **RUN_HOOKS)
def travelling(site: str, start_from: str) -> State[Any]:
    job = claim_change(CHANGE, site, False, start_from=start_from)
    if job is None:
        return Completed(name="Duplicate")
    boot(job, compose(job, build(job)))
    return Completed()


if __name__ == "__main__":
    travelling(sys.argv[2], sys.argv[3])
