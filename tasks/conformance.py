"""The e2e stage of Atomic Host: a cluster on guests of the new image, and what its conformance suite says."""

from __future__ import annotations

from prefect import get_run_logger

from blocks import GuestMachine, HostTests, ImageStore
from distgate.conformance import ConformanceReport
from distgate.drivers.tree_images import TreeImage
from distgate.errors import DistgateError, InfrastructureError, PackageError, TestsError
from tasks.claim import Job
from tasks.stage import ledger, stage, verdict_of

SUFFIX = "compose.test.e2e"
#: What keeps a suite from running, by who is to blame for it.
_ERRORS: dict[str, type[DistgateError]] = {
    "infrastructure": InfrastructureError,
    "tests": TestsError,
    "package": PackageError,
}


def conformance_configured(job: Job) -> bool:
    """Whether the site tests conformance at all."""
    return bool(HostTests.of(job.site).profile)


@stage(SUFFIX, "e2e conformance")
def conformance_tests(job: Job, image: TreeImage) -> ConformanceReport:
    """Make a cluster of guests of ``image`` and run the profile's conformance suite on it.

    Raises what keeps the suite from running: PackageError, TestsError, InfrastructureError or ConfigurationError.
    """
    tests, log = HostTests.of(job.site), get_run_logger()
    conformance = tests.conformance_on(
        GuestMachine.of(job.site),
        job.room.stage("e2e-profile"),
        lambda line: log.info("%s: %s", job.change.title, line),
    )
    report = conformance.run(image.path, ImageStore.of(job.site).ssh_key(), job.room.stage_again("e2e"))
    if report.status == "FAILURE":
        raise _ERRORS[report.blame or "tests"](report.sentence, evidence=report.suite.details)
    ledger().learn(job.run_id, **{verdict_of(SUFFIX): report.status})
    return report
