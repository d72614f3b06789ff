"""The e2e stage of Atomic Host: a cluster on guests of the new image, and what its conformance suite says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocks import GuestMachine, HostTests, ImageStore
from distgate.errors import error_for
from distgate.pipelines import STAGES
from tasks.run.job import Job
from tasks.run.live_logs import LiveLogs
from tasks.run.slots import guest_slot
from tasks.run.stage import stage

if TYPE_CHECKING:
    from distgate.atomic.images import TreeImage
    from distgate.conformance.verdict import ConformanceReport

STAGE = STAGES["atomic"]["compose.test.e2e"]
NO_IMAGE = "not tested: the run made no image"
NO_PROFILE = "not configured (block Host tests)"


def why_no_e2e(job: Job, image: TreeImage | None) -> str:
    """Why the conformance of ``image`` is not tested; empty when it is."""
    if not HostTests.of(job.site).profile:
        return NO_PROFILE
    return "" if image else NO_IMAGE


@stage(STAGE, slot=guest_slot)
def conformance_tests(job: Job, image: TreeImage) -> ConformanceReport:
    """Make a cluster of guests of ``image`` and run the profile's conformance suite on it.

    Raises what keeps the suite from running: PackageError, TestsError, InfrastructureError or ConfigurationError.
    """
    profile, stage_dir = job.run_dir.stage("e2e-profile"), job.run_dir.stage_again(STAGE.directory)
    with LiveLogs(job, STAGE.live, "How the cluster is made and tested", stage_dir) as live:
        conformance = HostTests.of(job.site).conformance_on(GuestMachine.of(job.site), profile, live)
        report = conformance.run(image.path, ImageStore.of(job.site).ssh_key(), stage_dir)
    if report.status == "FAILURE":
        raise error_for(report.blame or "tests")(report.sentence, evidence=report.suite.details)
    return report
