"""A pipeline of our stages whose work is told by a word: run by test_stage_messages in a process of its own."""

import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.changes.change import Change
from distgate.errors import Cancelled, InfrastructureError, PackageError
from distgate.ledger.runs import RunFacts
from distgate.pipelines import STAGES, Pipeline
from tasks.claim import claim_change
from tasks.run.job import Job
from tasks.run.stage import end_of_run, ledger, stage

CHANGE = Change(namespace="rpms", repo="tiny", rev="cd" * 20, branch="f41", username="jane")


@stage(STAGES["allpackages"]["package"])
def build(job: Job, word: str, scratch: str) -> str:
    tries = Path(scratch) / "tries"
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    if word == "package":
        raise PackageError("it does not compile")
    if word == "cancelled":
        raise Cancelled("somebody cancelled the Koji task")
    if word == "infrastructure" or (word == "hiccup" and len(tries.read_text()) < 3):
        raise InfrastructureError("the hub is away")
    ledger().record_facts(job.run_id, RunFacts(nvr="tiny-1-1.fc41", original_spec_nvr="tiny-1-1.fc41"))
    return "built"


@stage(STAGES["allpackages"]["package.test.functional"])
def functional(job: Job, word: str) -> str:
    ledger().record_facts(
        job.run_id, RunFacts(statuses={"package.test.functional": "UNSTABLE" if word == "unstable" else ""})
    )
    return word


@flow(name="tiny", on_completion=[end_of_run], on_failure=[end_of_run])
def tiny(word: str, scratch: str, pipeline: Pipeline = "allpackages") -> State[Any]:
    job = claim_change(CHANGE, "lab", False, pipeline=pipeline)
    if job is None:
        return Completed(name="Duplicate")
    build(job, word, scratch)
    if word == "bug":
        raise ZeroDivisionError
    functional(job, word)
    return Completed()


if __name__ == "__main__":
    given, place, *rest = sys.argv[1:]
    tiny(given, place, "atomic" if rest == ["atomic"] else "allpackages")
