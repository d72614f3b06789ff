"""The All Packages pipeline: scratch build, image, smoke test, the package's own tests, one verdict."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flows import FlowStateHook
from prefect.states import Completed

from distgate.change import Change
from distgate.stages import DUPLICATE
from tasks.build import build_package, cancel_build
from tasks.claim import claim_change
from tasks.compose import compose_image
from tasks.functional import find_tests, run_tests
from tasks.heartbeat import alive
from tasks.images import bases_held
from tasks.smoke import smoke_test
from tasks.stage import end_of_run
from tasks.summary import reported

#: A run says its last word however it ends.
_LAST_WORD: list[FlowStateHook[..., Any]] = [end_of_run]


@flow(
    name="all-packages",
    flow_run_name="{change.title}",
    on_completion=_LAST_WORD,
    on_failure=_LAST_WORD,
    on_cancellation=[*_LAST_WORD, cancel_build],
    on_crashed=_LAST_WORD,
)
def all_packages(
    change: Change,
    site: str | None = None,
    again: bool = False,
    reserve: int = 0,
    rerun_failed: bool | None = None,
) -> State[Any]:
    """Test one commit and say so on the bus.

    ``change`` is the commit; ``site`` names the block documents to work with (the worker's own by default);
    ``again`` asks for a re-run of a change that another run holds. ``reserve`` is for how many minutes the guest of
    a failure is held; ``rerun_failed`` asks for a failing suite to be run again, and without the change, to say where
    to look first (DISTGATE_RERUN_FAILED by default).
    """
    job = claim_change(change, site, again, reserve, rerun_failed)
    if job is None:
        return Completed(name=DUPLICATE, message="another run holds this change")
    with alive(job), bases_held(job), reported(job) as report:
        built = report.built = build_package(job)
        image = report.image = compose_image(job, built)
        report.smoke = smoke_test(job, image)
        plan = report.plan = find_tests(job)
        if plan.tests.to_run:
            report.verdict = run_tests(job, plan, image)
    return report.state()
