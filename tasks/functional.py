"""The functional stage: the package's own tests, each suite on a fresh guest of the composed image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task

from blocks import DistGit
from distgate.capsule import TestsRecord
from distgate.discovery import Discovery, discover
from distgate.drivers.base import ComposedImage, Guest
from distgate.drivers.capsule_records import suite_record
from distgate.drivers.suite_session import (
    NONE_ENABLED,
    JudgedSuite,
    SuiteSession,
    failure_of,
    runner_for,
    source_rpm,
    status_of,
)
from distgate.junit import junit
from distgate.settings import settings
from distgate.verdict import SuiteVerdict
from tasks.claim import Job
from tasks.images import base_under
from tasks.reserve import ReservedGuests
from tasks.stage import ledger, stage, verdict_of

SUFFIX = "package.test.functional"


@dataclass(frozen=True)
class Plan:
    """The package's tests in a checkout of the commit."""

    checkout: Path
    tests: Discovery


@dataclass(frozen=True)
class TestReport:
    """What the suites said: ``status`` is SUCCESS or UNSTABLE."""

    __test__ = False  # not a pytest class

    status: str
    judged: tuple[JudgedSuite, ...]

    @property
    def suites(self) -> tuple[SuiteVerdict, ...]:
        """The verdicts, in the order in which the suites ran."""
        return tuple(one.verdict for one in self.judged)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if not self.judged:
            return NONE_ENABLED
        bad = [suite for suite in self.suites if suite.verdict != "PASS"]
        if not bad:
            tests, suites = sum(len(suite.tests) for suite in self.suites), len(self.suites)
            return f"built, booted, and its tests passed: {tests} in {suites} {'suite' if suites == 1 else 'suites'}"
        said = "; ".join(f"{suite.suite}: {suite.evidence}" for suite in bad)
        return f"built and booted, but its tests did not all pass: {said} (blame: {bad[0].blame})"


@task(name="Find tests", retries=2, retry_delay_seconds=5)
def find_tests(job: Job) -> Plan:
    """The tests in the commit's own checkout, found without running anything."""
    room = job.room.stage("checkout")
    checkout = DistGit.of(job.site).checkout(job.change, room / job.change.repo)
    found = discover(checkout, namespace=job.change.namespace)
    names = ", ".join(suite.name for suite in found.to_run)
    get_run_logger().info("%s: tests: %s", job.change.title, names or f"skipped, {found.reason}")
    job.capsule.note(tests=TestsRecord(kind=found.kind, reason=found.reason))
    return Plan(checkout, found)


@stage(SUFFIX, "Functional tests")
def run_tests(job: Job, plan: Plan, image: ComposedImage) -> TestReport:
    """Run every suite and judge them all.

    Raises TestsError or GaveUp when a suite could not be run; tests that ran and failed are no error.
    """
    room = job.room.stage_again("tests")
    session = _session(job, image)
    judged = session.run(plan.checkout, plan.tests.to_run, room, rerun_failed=job.rerun_failed)
    (room / "junit.xml").write_text(junit([one.verdict for one in judged]), encoding="utf-8")
    records = tuple(suite_record(one, job.room.root) for one in judged)
    job.capsule.note(tests=TestsRecord(kind=plan.tests.kind, reason=plan.tests.reason, suites=records))
    status = status_of(judged)
    if status == "FAILURE":
        raise failure_of(judged)
    ledger().learn(job.run_id, **{verdict_of(SUFFIX): status})
    return TestReport(status, judged)


def _session(job: Job, image: ComposedImage) -> SuiteSession:
    guests, log = ReservedGuests(job), get_run_logger()

    def ended(guest: Guest, verdict: SuiteVerdict, _last: bool) -> None:
        if verdict.verdict != "PASS":
            guests.keep(guest, f"{verdict.suite}: {verdict.evidence}")

    return SuiteSession(
        host=guests.host,
        base=base_under(job, image),
        image=image.path,
        packages=image.requested,
        runner_for=runner_for(
            job.change.branch,
            roles_path=settings().roles_path,
            ansible=settings().ansible,
            srpm=source_rpm(job.room.root / "build"),
        ),
        boot_timeout=settings().boot_timeout,
        suite_timeout=settings().suite_timeout,
        tests_timeout=settings().tests_timeout,
        progress=lambda line: log.info("%s: %s", job.change.title, line),
        ended=ended,
    )
