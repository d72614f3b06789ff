"""The functional stage: the package's own tests, each suite on a fresh guest of the composed image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import get_run_logger, task

from blocks import DistGit
from distgate.images.base import ComposedImage
from distgate.pipelines import STAGES
from distgate.runs.record import TestsRecord
from distgate.testing.discovery import CLASSIC, Discovery, discover
from tasks.build import STAGE as BUILD
from tasks.build import BuiltPackage
from tasks.compose import composed
from tasks.run.base_images import base_of_image, image_store_id
from tasks.run.job import Job
from tasks.run.live_logs import LiveLogs
from tasks.run.slots import guest_slot
from tasks.run.stage import stage
from tasks.run.suites import JudgedSuites, stage_status, suite_session, write_junit

if TYPE_CHECKING:
    from distgate.runners.session import JudgedSuite

IMAGE_STAGE = STAGES["allpackages"]["package.test.functional"]
PACKAGE_STAGE = STAGES["atomic"][IMAGE_STAGE.suffix]


@dataclass(frozen=True)
class Plan:
    """The package's tests in a checkout of the commit: those that ``tag`` selects."""

    checkout: Path
    tests: Discovery
    tag: str = CLASSIC


@dataclass(frozen=True)
class TestReport(JudgedSuites):
    """The verdicts of the suites: ``status`` is SUCCESS or UNSTABLE; ``before`` names what had worked before."""

    __test__ = False  # not a pytest class

    status: str
    judged: tuple[JudgedSuite, ...]
    before: str = "built and booted"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        from distgate.runners.session import NONE_ENABLED

        if not self.judged:
            return f"{self.before}; {NONE_ENABLED}"
        bad = [suite for suite in self.suites if suite.verdict != "PASS"]
        if not bad:
            tests, suites = sum(len(suite.tests) for suite in self.suites), len(self.suites)
            return f"{self.before}, its tests passed: {tests} in {suites} {'suite' if suites == 1 else 'suites'}"
        evidence = "; ".join(
            f"{suite.suite.name}: {suite.verdict.evidence}" for suite in self.judged if suite.verdict in bad
        )
        return f"{self.before}, but its tests did not all pass: {evidence} (blame: {bad[0].blame})"


@task(name="Find tests", retries=2, retry_delay_seconds=5)
def find_tests(job: Job, tags: Sequence[str] = (CLASSIC,)) -> Plan:
    """The tests in the commit's own checkout, found without running anything: those of the first of ``tags`` that
    selects any."""
    checkout_dir = job.run_dir.stage("checkout")
    checkout = DistGit.of(job.site).checkout(job.change, checkout_dir / job.change.repo)
    looks = [(tag, discover(checkout, tag, job.change.namespace)) for tag in tags]
    tag, discovery = next((look for look in looks if look[1].to_run), looks[-1])
    names = ", ".join(suite.name for suite in discovery.to_run)
    get_run_logger().info("%s: tests: %s", job.change.title, names or f"skipped, {discovery.reason}")
    earlier = job.record.read().tests  # of a retry, or taken over: what is not run again is still true
    suites = earlier.suites if earlier else ()
    job.record.update(tests=TestsRecord(kind=discovery.kind, reason=discovery.reason, suites=suites))
    return Plan(checkout, discovery, tag)


@stage(IMAGE_STAGE, image_store_id, guest_slot)
def run_tests(job: Job, plan: Plan, image: ComposedImage) -> TestReport:
    """Run every suite and judge them all.

    Raises TestsError or GaveUp when a suite could not be run; tests that ran and failed are no error.
    """
    return TestReport(*_judged(job, plan, image))


@stage(PACKAGE_STAGE, slot=guest_slot)
def test_package(job: Job, plan: Plan, built: BuiltPackage) -> TestReport:
    """``run_tests`` on a test bed made for them: the branch's cloud image with the package."""
    return TestReport(*_judged(job, plan, composed(job, built)), before="built")


def _judged(job: Job, plan: Plan, image: ComposedImage) -> tuple[str, tuple[JudgedSuite, ...]]:
    from distgate.runners.session import source_rpm
    from distgate.runs.recording import suite_record

    stage_dir = job.run_dir.stage_again(IMAGE_STAGE.directory)
    job.record.update(tests=TestsRecord(kind=plan.tests.kind, reason=plan.tests.reason))
    base, srpm = base_of_image(job, image), source_rpm(job.run_dir.root / BUILD.directory)
    with LiveLogs(job, IMAGE_STAGE.live, "How the suites run", stage_dir) as live:
        session = suite_session(job, base, image.path, image.requested, live, srpm=srpm, tag=plan.tag)
        judged = session.run(plan.checkout, plan.tests.to_run, stage_dir, rerun_failed=job.rerun_failed)
    write_junit(judged, stage_dir)
    records = tuple(suite_record(suite, job.run_dir.root) for suite in judged)
    job.record.update(tests=TestsRecord(kind=plan.tests.kind, reason=plan.tests.reason, suites=records))
    return stage_status(judged), judged
