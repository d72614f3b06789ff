"""The Atomic Host pipeline: package, its tests, OSTree compose, a host that upgrades to it, image, cluster."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from distgate.changes.change import Change
from distgate.changes.retrigger import RunRequest
from distgate.pipelines import DUPLICATE, HELD
from distgate.testing.discovery import CLASSIC
from tasks.build import build_package
from tasks.claim import claim_change
from tasks.conformance import conformance_tests, why_no_e2e
from tasks.find_change import resolve_request
from tasks.functional import find_tests, test_package
from tasks.hooks import RUN_HOOKS
from tasks.host_image import make_image, smoke_test_image, why_no_image
from tasks.integration import integration_tests
from tasks.page.atomic_host import HostReport
from tasks.page.summary import publishes_summary
from tasks.run.base_images import hold_base_images
from tasks.run.heartbeat import heartbeat
from tasks.tree import branch_held, candidate, compose_tree

#: Suites of the package that are run: the first kind that there is.
TAGS = ("atomic", CLASSIC)


@flow(name="atomic-host", flow_run_name="{change.title}", **RUN_HOOKS)
def atomic_host(
    change: Change | RunRequest,
    site: str | None = None,
    again: bool = False,
    reserve: Annotated[int, Field(ge=0, le=1440)] = 0,
    rerun_failed: bool | None = None,
    image: bool | None = None,
    start_from: str = "",
) -> State[Any]:
    """Test one commit in a whole Atomic Host and say so on the bus.

    Args:
        change: The commit, or what names it: a package's branch, a message, a Koji build (docs/retrigger.md).
        site: The name of the block documents to work with; the worker's own by default.
        again: Whether a change that another run holds is tested again.
        reserve: For how many minutes the guest of a failure is held, a day at most.
        rerun_failed: Whether a failing suite is run again, and without the change, to say where to look first;
            DISTGATE_RERUN_FAILED by default.
        image: Whether an image is made of the tree; by default when the last one is older than DISTGATE_IMAGE_EVERY.
        start_from: The stage to begin at, such as compose, with the results of the change's last run.
    """
    resolved = resolve_request(change, site)
    job = claim_change(
        resolved.change,
        site,
        again,
        reserve,
        rerun_failed,
        "atomic",
        start_from=start_from,
        koji_task=resolved.koji_task,
    )
    if job is None:
        return Completed(name=DUPLICATE, message=HELD)
    with heartbeat(job), hold_base_images(job), publishes_summary(HostReport(job)) as report:
        built = report.built = build_package(job)
        plan = report.plan = find_tests(job, TAGS)
        if plan.tests.to_run:
            report.verdict = test_package(job, plan, built)
        with branch_held(job):
            tree = report.tree = compose_tree(job, built)
            with candidate(job, built, tree) as trial:
                report.integration = integration_tests(job, tree)
                report.no_image = why_no_image(job, report.status, image)
                if not report.no_image:
                    report.image = make_image(job, tree)
                    report.smoke = smoke_test_image(job, tree, report.image)
                trial.passed = report.status == "SUCCESS"
        report.no_e2e = why_no_e2e(job, report.image)
        if report.image and not report.no_e2e:
            report.conformance = conformance_tests(job, report.image)
    return report.state()
