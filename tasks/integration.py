"""The integration stage of Atomic Host: a host upgrades to the composed tree, and the configured suite runs on it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blocks import HostTests, ImageStore, OSTreeRepo
from distgate.images.base import BaseImage
from distgate.ostree.base import ComposedTree
from distgate.pipelines import STAGES
from distgate.settings import settings
from distgate.steps import Progress
from distgate.testing.discovery import Suite
from tasks.run.guests import ReservedGuests
from tasks.run.job import Job
from tasks.run.live_logs import LiveLogs
from tasks.run.slots import guest_slot
from tasks.run.stage import stage
from tasks.run.suites import JudgedSuites, stage_status, suite_session, write_junit
from tasks.tree import trees_of

if TYPE_CHECKING:
    from distgate.atomic.upgrade_test import UpgradeReport
    from distgate.runners.session import JudgedSuite

STAGE = STAGES["atomic"]["compose.test.integration"]


@dataclass(frozen=True)
class IntegrationReport(JudgedSuites):
    """The outcomes of the upgrade and the suite: ``status`` is SUCCESS or UNSTABLE."""

    status: str
    upgrade: UpgradeReport
    judged: tuple[JudgedSuite, ...] = ()

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        bad = [suite for suite in self.suites if suite.verdict != "PASS"]
        if bad:
            evidence = "; ".join(f"{suite.suite}: {suite.evidence}" for suite in bad)
            return (
                f"the host upgrades, but the integration tests did not all pass: {evidence} (blame: {bad[0].blame})"
            )
        tests = sum(len(suite.tests) for suite in self.suites)
        return f"{self.upgrade.sentence}; integration tests: {tests} passed" if tests else self.upgrade.sentence


@stage(STAGE, slot=guest_slot)
def integration_tests(job: Job, tree: ComposedTree) -> IntegrationReport:
    """Upgrade a guest of the previous commit to ``tree`` over http, look at it, roll it back; then run the suite.

    Raises PackageError when the host does not come up as it should, TestsError or GaveUp when the suite could not
    be run; tests that ran and failed are no error.
    """
    stage_dir = job.run_dir.stage_again(STAGE.directory)
    with ExitStack() as stack, LiveLogs(job, STAGE.live, "How the host upgrades, and its suite", stage_dir) as live:
        disks = _Disks(job, tree, stack, live)
        upgrade = _upgrade(job, tree, disks, stage_dir)
        judged = _suite(job, tree, disks, stage_dir)
    return IntegrationReport(stage_status(judged), upgrade, judged)


@dataclass(frozen=True)
class _Disks:
    """Disks of the branch's commits, kept for as long as ``stack`` is open."""

    job: Job
    tree: ComposedTree
    stack: ExitStack
    progress: Progress

    @property
    def key(self) -> Path:
        return ImageStore.of(self.job.site).ssh_key()

    def of(self, rev: str) -> Path:
        """A disk of the commit ``rev``, whose host upgrades from the site's own repository."""
        repo, branch = OSTreeRepo.of(self.job.site), self.job.change.branch
        disk = repo.disks(branch).disk(
            trees_of(self.job).published,
            rev,
            self.tree.ref,
            remote_url=repo.compose_url(branch),
            key=self.key,
            progress=self.progress,
            holder=self.job.holder,
        )
        return self.stack.enter_context(disk)


def _upgrade(job: Job, tree: ComposedTree, disks: _Disks, stage_dir: Path) -> UpgradeReport:
    from distgate.atomic.upgrade_test import TreeUpgrade

    url, parent = OSTreeRepo.of(job.site).compose_url(job.change.branch), tree.parent
    guests = ReservedGuests(job)
    upgrade = TreeUpgrade(guests.host, settings().boot_timeout, progress=disks.progress)
    report = upgrade.test(
        disks.of(parent) if parent else None,
        tree,
        url,
        disks.key,
        tree.requested,
        stage_dir / "upgrade",
        new=None if parent else disks.of(tree.rev),
    )
    disks.progress(report.sentence)
    return report


def _suite(job: Job, tree: ComposedTree, disks: _Disks, stage_dir: Path) -> tuple[JudgedSuite, ...]:
    tests = HostTests.of(job.site)
    if not tests.has_suite:
        disks.progress("no integration suite is configured (block Host tests)")
        return ()
    checkout, disk = tests.checkout(stage_dir / "suite"), disks.of(tree.rev)
    url = OSTreeRepo.of(job.site).compose_url(job.change.branch)
    variables = {"compose_url": url, "compose_rev": tree.rev, "compose_ref": tree.ref}
    session = suite_session(
        job, BaseImage(disk, tree.rev, 0, disks.key), disk, tree.requested, disks.progress, variables=variables
    )
    judged = session.run(checkout, [Suite(path, kind="playbook") for path in tests.playbooks], stage_dir / "suites")
    write_junit(judged, stage_dir)
    return judged
