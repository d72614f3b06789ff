"""One stage that takes a slot, and works until a file is there: run by test_slots, a process for each run."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.changes.change import Change
from distgate.pipelines import STAGES
from distgate.waiting import wait_for
from tasks.claim import claim_change
from tasks.hooks import RUN_HOOKS
from tasks.run.job import Job
from tasks.run.slots import slot
from tasks.run.stage import stage

WORLD, NAME, LIMIT, SLOTS = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
CHANGE = Change(namespace="rpms", repo=NAME, rev="cd" * 20, branch="f41", username="jane")


def one_of(job: Job) -> AbstractContextManager[None]:
    return slot(job, LIMIT, SLOTS, "to be tried")


@stage(STAGES["allpackages"]["package"], slot=one_of)
def build(job: Job) -> None:
    (WORLD / f"{NAME}.began").write_text(job.run_id)
    wait_for("the end", lambda: (WORLD / f"{NAME}.end").exists(), 240)


@flow(name="slotted", **RUN_HOOKS)
def slotted() -> State[Any]:
    job = claim_change(CHANGE, "slotted", False)
    assert job is not None
    (WORLD / f"{NAME}.run").write_text(job.run_id)
    build(job)
    return Completed()


if __name__ == "__main__":
    slotted()
