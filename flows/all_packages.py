"""The All Packages pipeline: scratch build, image, smoke test, the package's own tests, one verdict."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from distgate.changes.change import Change
from distgate.changes.retrigger import RunRequest
from distgate.pipelines import DUPLICATE, HELD
from tasks.build import build_package
from tasks.claim import claim_change
from tasks.compose import compose_image
from tasks.find_change import resolve_request
from tasks.functional import find_tests, run_tests
from tasks.hooks import RUN_HOOKS
from tasks.page.all_packages import ImageReport
from tasks.page.summary import publishes_summary
from tasks.run.base_images import hold_base_images
from tasks.run.heartbeat import heartbeat
from tasks.smoke import smoke_test


@flow(name="all-packages", flow_run_name="{change.title}", **RUN_HOOKS)
def all_packages(
    change: Change | RunRequest,
    site: str | None = None,
    again: bool = False,
    reserve: Annotated[int, Field(ge=0, le=1440)] = 0,
    rerun_failed: bool | None = None,
    start_from: str = "",
) -> State[Any]:
    """Test one commit and say so on the bus.

    Args:
        change: The commit, or what names it: a package's branch, a message, a Koji build (docs/retrigger.md).
        site: The name of the block documents to work with; the worker's own by default.
        again: Whether a change that another run holds is tested again.
        reserve: For how many minutes the guest of a failure is held, a day at most.
        rerun_failed: Whether a failing suite is run again, and without the change, to say where to look first;
            DISTGATE_RERUN_FAILED by default.
        start_from: The stage to begin at, such as image.test.smoke, with the results of the change's last run.
    """
    resolved = resolve_request(change, site)
    job = claim_change(
        resolved.change, site, again, reserve, rerun_failed, start_from=start_from, koji_task=resolved.koji_task
    )
    if job is None:
        return Completed(name=DUPLICATE, message=HELD)
    with heartbeat(job), hold_base_images(job), publishes_summary(ImageReport(job)) as report:
        built = report.built = build_package(job)
        image = report.image = compose_image(job, built)
        report.smoke = smoke_test(job, image)
        plan = report.plan = find_tests(job)
        if plan.tests.to_run:
            report.verdict = run_tests(job, plan, image)
    return report.state()
