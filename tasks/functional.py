"""The functional stage: the package's own tests, each suite on a fresh guest of the composed image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task

from blocks import DistGit, GuestMachine, ImageStore
from distgate.change import Change
from distgate.discovery import Discovery, Suite, discover
from distgate.drivers.ansible import AnsibleSuites
from distgate.drivers.base import ComposedImage, SuiteRunner
from distgate.errors import DistgateError, GaveUp, TestsError
from distgate.settings import settings
from distgate.verdict import SuiteVerdict, judge, run_verdict, unreadable
from tasks.claim import Job
from tasks.stage import ledger, stage, verdict_of

SUFFIX = "package.test.functional"
#: Tries of one suite, each on a fresh guest, when our side broke; what the package's tests said is never repeated.
TRIES = 2


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
    suites: tuple[SuiteVerdict, ...]

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
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
    names = ", ".join(suite.path for suite in found.suites)
    get_run_logger().info("%s: tests: %s", job.change.title, names or f"skipped, {found.reason}")
    return Plan(checkout, found)


@stage(SUFFIX, "Functional tests")
def run_tests(job: Job, plan: Plan, image: ComposedImage) -> TestReport:
    """Run every suite and judge them all.

    Raises TestsError or GaveUp when a suite could not be run; tests that ran and failed are no error.
    """
    room = job.room.stage("tests")
    verdicts = tuple(_run_suite(job, plan.checkout, suite, image, room) for suite in plan.tests.suites)
    for one in verdicts:
        get_run_logger().info("%s: %s: %s, %s", job.change.title, one.suite, one.verdict, one.evidence)
    status = run_verdict(verdicts)
    if status == "FAILURE":
        raise _failure(verdicts)
    ledger().learn(job.run_id, **{verdict_of(SUFFIX): status})
    return TestReport(status, verdicts)


def _run_suite(job: Job, checkout: Path, suite: Suite, image: ComposedImage, room: Path) -> SuiteVerdict:
    if suite.problem:
        return unreadable(suite.path, suite.problem)
    for number in range(1, TRIES + 1):
        place = room / Path(suite.path).stem / ("" if number == 1 else f"try-{number}")
        verdict = _on_fresh_guest(job, checkout / suite.path, image, place)
        if not verdict.retryable:
            break
        get_run_logger().warning("%s: %s: %s", job.change.title, suite.path, verdict.evidence)
    return verdict


def _on_fresh_guest(job: Job, playbook: Path, image: ComposedImage, place: Path) -> SuiteVerdict:
    base = ImageStore.of(job.site).base(job.change.branch)
    host = GuestMachine.of(job.site).guests()
    with host.boot(image.path, base.ssh_key, place / "guest", settings().boot_timeout) as guest:
        variables = variables_of(job.change)
        runner: SuiteRunner = AnsibleSuites([image.path])
        return judge(runner.run(playbook, guest, place / "artifacts", variables, settings().suite_timeout))


def variables_of(change: Change) -> dict[str, str]:
    """What the Standard Test Interface passes beside the subjects."""
    return {"git_branch": change.branch}


def _failure(verdicts: tuple[SuiteVerdict, ...]) -> DistgateError:
    bad = [one for one in verdicts if one.verdict in ("ERROR", "NOTHING_RUN")]
    evidence = "\n".join(f"{one.suite}: {one.verdict}: {one.evidence}" for one in verdicts)
    said = f"{len(bad)} of {len(verdicts)} test suites could not be run: {bad[0].evidence}"
    kind = GaveUp if any(one.retryable for one in bad) else TestsError
    return kind(said, hint="ansible.log of the suite has every task", evidence=evidence)
