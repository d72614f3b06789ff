"""A flow that ends in every way that a run can, told by a word: run by test_state_names in a process of its own."""

import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State

from distgate.change import Change
from distgate.errors import (
    Cancelled,
    ConfigurationError,
    GaveUp,
    InfrastructureError,
    PackageError,
    TestsError,
)
from tasks.claim import claim_change
from tasks.functional import TestReport
from tasks.image_report import ImageReport
from tasks.stage import end_of_run
from tasks.summary import reported

ERRORS: dict[str, Exception] = {
    "package": PackageError("it does not boot"),
    "tests": TestsError("no tests.yml can be read"),
    "infrastructure": InfrastructureError("the hub is away"),
    "gave up": GaveUp("it took too long"),
    "configuration": ConfigurationError("there is no such branch"),
    "cancelled": Cancelled("somebody cancelled the Koji task"),
    "bug": ZeroDivisionError("division by zero"),
}


@flow(name="named", on_completion=[end_of_run], on_failure=[end_of_run])
def named(word: str) -> State[Any]:
    change = Change(
        namespace="rpms", repo="tiny", rev=word.replace(" ", "").encode().hex().ljust(40, "0")[:40], branch="f41"
    )
    job = claim_change(change, "lab", False)
    assert job
    seen[word] = str(runtime.flow_run.id)
    with reported(ImageReport(job)) as report:
        if word == "unstable":
            report.verdict = TestReport("UNSTABLE", ())
        if word in ERRORS:
            raise ERRORS[word]
    return report.state()


seen: dict[str, str] = {}

if __name__ == "__main__":
    for one in ("unstable", *ERRORS):
        named(one, return_state=True)
    Path(sys.argv[1]).write_text(json.dumps(seen))
