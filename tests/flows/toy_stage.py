"""A pipeline with a stage that distgate does not have, added as docs/architecture.md says: run by test_toy_stage.

The row of the stage table is the first place, the task the second, the line in the flow the third.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State

from distgate.bus.order import STATES
from distgate.changes.change import Change
from distgate.errors import Blame
from distgate.pipelines import STAGES, Stage, TestKind
from distgate_messages.fields import NVR_FIELDS
from tasks.claim import claim_change
from tasks.hooks import RUN_HOOKS
from tasks.page.all_packages import ImageReport
from tasks.page.summary import publishes_summary
from tasks.run.job import Job
from tasks.run.stage import StageTask, stage

CHANGE = Change(namespace="rpms", repo="tiny", rev="cd" * 20, branch="f41", username="jane")
TOY = Stage(
    "image.test.toy",
    "Toy test",
    STATES,
    NVR_FIELDS,
    directories=("toy",),
    test=TestKind("toy", "validation"),
    owed=True,
)


def add_row(row: Stage) -> None:
    """As if the row stood in the table of All Packages, before the pipeline's own."""
    rows = dict(STAGES["allpackages"])
    end = rows.pop("")
    cast("dict[str, Any]", STAGES)["allpackages"] = {**rows, row.suffix: row, "": end}


def passing(row: Stage) -> StageTask[[Job], str]:
    """A stage without work, in the place of one that distgate has."""

    def work(job: Job) -> str:
        return f"{row.title} of {job.change.title}"

    made: Callable[[Callable[[Job], str]], StageTask[[Job], str]] = stage(row)
    return made(work)


@dataclass(frozen=True)
class ToyReport:
    status: str
    sentence: str
    blame: Blame | None = None


@stage(TOY)
def toy_test(job: Job) -> ToyReport:
    (job.run_dir.stage(TOY.directory) / "toy.log").write_text("the spring is broken\n")
    return ToyReport("UNSTABLE", "the toy does not roll", "package")


@flow(name="toy", **RUN_HOOKS)
def toy(start_from: str) -> State[Any]:
    job = claim_change(CHANGE, "lab", False, start_from=start_from)
    assert job is not None
    with publishes_summary(ImageReport(job)) as report:
        for row in STAGES["allpackages"].values():
            if row.owed and row != TOY:
                passing(row)(job)
        report.results["toy test"] = toy_test(job)
    return report.state()


if __name__ == "__main__":
    add_row(TOY)
    toy(sys.argv[2])

    from distgate.ledger.ledger import Ledger
    from distgate.operations.audit import audit
    from distgate.operations.ledger_queries import ledger_snapshot
    from distgate.reports.channels.resultsdb import result_of
    from distgate.reports.notice import notice_of
    from distgate.reports.reporter import ReporterIdentity

    ledger = Ledger(f"sqlite:///{sys.argv[1]}/ledger.db")
    messages = ledger.unsent()
    run = ledger.run(messages[-1].body["build_id"])
    assert run is not None
    speaker = ReporterIdentity("distgate", "the team")
    results = [result_of(notice_of(message, run), speaker) for message in messages]
    names = [f"{result['testcase']['name']} {result['outcome']}" for result in results if result]
    answer = {
        "run": run.run_id,
        "said": [f"{one.topic.partition('allpackages.')[2]} {one.body['status']}" for one in messages],
        "results": names,
        "problems": audit(ledger_snapshot(ledger, 0.0), 0.0).as_json()["problems"],
    }
    (Path(sys.argv[1]) / "answer.json").write_text(json.dumps(answer))
