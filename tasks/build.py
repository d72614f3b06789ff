"""The package stage: a Koji scratch build of exactly this commit, and a repository of its packages.

Koji builds it from dist-git for All Packages. For Atomic Host it builds a source package that distgate makes of the
commit, whose release names it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from blocks import DistGit, KojiInstance
from distgate.builds.base import BuildHub, TaskLost
from distgate.builds.release import SHORT, original
from distgate.builds.unit_tests import UNKNOWN, UnitTests, unit_tests
from distgate.errors import Cancelled, ConfigurationError, DistgateError, GaveUp, PackageError, TimedOut
from distgate.files import sha256_of
from distgate.ledger.runs import RunFacts
from distgate.pipelines import STAGES, koji_target
from distgate.rpm.nevra import Nevra, RpmFile, read_rpms, under_test
from distgate.rpm.repository import make_repository
from distgate.runs.record import BuildRecord, UnitTestsRecord, record_rpms
from distgate.settings import settings
from distgate.steps import Progress
from tasks.run.job import Job
from tasks.run.live_text import LiveText
from tasks.run.slots import build_slot
from tasks.run.stage import ledger, stage

log = logging.getLogger(__name__)

#: The row is the same in both pipelines.
STAGE = STAGES["allpackages"]["package"]
ARCH = "x86_64"
#: The directory of a run that holds the source package that was uploaded, if one was.
SOURCE = "source"
#: The fact of a run that holds its hub's address and its task ID there.
TASK = "koji_task"


@dataclass(frozen=True)
class BuiltPackage:
    """A finished scratch build: its NVR, the packages under test, and the repository that holds them.

    ``original_nvr`` is the NVR that the spec file has in dist-git, which is another one where the release was made to
    name the commit. ``unit_tests`` is the outcome of %check.
    """

    task_id: int
    nvr: str
    packages: tuple[Nevra, ...]
    repository: Path
    original_nvr: str = ""
    unit_tests: UnitTests = UNKNOWN

    @property
    def source_name(self) -> str:
        """The name of the source package."""
        return self.nvr.rsplit("-", 2)[0]


@stage(STAGE, slot=build_slot)
def build_package(job: Job) -> BuiltPackage:
    """Scratch-build the commit and download its RPMs and logs."""
    stage_dir = job.run_dir.stage(STAGE.directory)
    koji = KojiInstance.of(job.site)
    hub = koji.hub()
    task_id = _task_of(job, hub, koji.server)
    submitted = _record_of(job, koji, task_id)
    job.record.update(build=submitted)
    _wait_for_build(job, hub, task_id, stage_dir)
    rpms = read_rpms([path for path in hub.download(task_id, stage_dir, ARCH) if path.suffix == ".rpm"])
    make_repository(stage_dir)
    built = _built(job, task_id, rpms, stage_dir)
    job.record.update(build=submitted.model_copy(update=_build_fields(built, rpms)))
    return built


def cancel_build(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Flow hook: a run that is cancelled does not leave its Koji task building."""
    run = ledger().run(str(flow_run.id))
    server, _, task = (run.facts.koji_task if run else "").rpartition(" ")
    koji = KojiInstance.of(flow_run.parameters.get("site") or settings().site)
    if task and server == koji.server:
        koji.hub().cancel(int(task))
        log.warning("run %s was cancelled, and Koji task %s with it", flow_run.id, task)


def _record_of(job: Job, koji: KojiInstance, task_id: int) -> BuildRecord:
    source, target = DistGit.of(job.site).source(job.change), koji_target(job.change.branch)
    uploaded = sorted((job.run_dir.root / SOURCE).glob("*.src.rpm"))
    source_fields = (
        {"srpm": f"{SOURCE}/{uploaded[0].name}", "srpm_sha256": sha256_of(uploaded[0])} if uploaded else {}
    )
    return BuildRecord(
        server=koji.server,
        topurl=koji.topurl,
        task_id=task_id,
        source=source,
        target=target,
        arch=ARCH,
        **source_fields,
    )


def _build_fields(built: BuiltPackage, rpms: list[RpmFile]) -> dict[str, Any]:
    """The fields of the run record that a finished build fills."""
    tests = built.unit_tests
    return {
        "nvr": built.nvr,
        "original_nvr": built.original_nvr,
        "packages": built.packages,
        "rpms": record_rpms(rpms),
        "unit_tests": UnitTestsRecord(status=tests.status, evidence=tests.evidence, seconds=tests.seconds),
    }


def _wait_for_build(job: Job, hub: BuildHub, task_id: int, stage_dir: Path) -> None:
    try:
        hub.wait(task_id, settings().build_timeout, _progress(job))
    except PackageError as error:
        _drop_task(job, hub, task_id, stage_dir)
        raise _in_tests(error, stage_dir) from error
    except (Cancelled, ConfigurationError, TaskLost):
        _drop_task(job, hub, task_id, stage_dir)
        raise
    except TimedOut as error:
        _drop_task(job, hub, task_id, stage_dir)
        raise GaveUp(error.message, hint="DISTGATE_BUILD_TIMEOUT is the limit", evidence=error.evidence) from error


def _in_tests(failed: PackageError, stage_dir: Path) -> PackageError:
    """The same failure; the one of the unit tests when they caused it."""
    tests = _unit_tests(stage_dir, built=False)
    if tests.status != "failed":
        return failed
    return PackageError(
        f"the unit tests failed: {tests.evidence}; {failed.message}",
        hint="they are %check of the spec file; build.log has their whole output",
        evidence=tests.tail,
    )


def _unit_tests(stage_dir: Path, *, built: bool) -> UnitTests:
    logs = [path for path in (stage_dir / f"build.{arch}.log" for arch in (ARCH, "noarch")) if path.exists()]
    if not logs:
        return UNKNOWN
    with logs[0].open(encoding="utf-8", errors="replace") as stream:
        # A very long line is read in pieces: a test may print anything.
        return unit_tests(iter(lambda: stream.readline(1 << 16), ""), built=built)


def _drop_task(job: Job, hub: BuildHub, task_id: int, stage_dir: Path) -> None:
    """Download the logs of a failed task, and forget the task, so that a retry submits a new one."""
    ledger().record_facts(job.run_id, RunFacts(koji_task=""))
    _fetch_logs(hub, task_id, stage_dir)


def _task_of(job: Job, hub: BuildHub, server: str) -> int:
    """The Koji task that this run submitted to this hub before it was interrupted, or a new one."""
    run = ledger().run(job.run_id)
    recorded_server, _, recorded = (run.facts.koji_task if run else "").rpartition(" ")
    if recorded and recorded_server == server:
        get_run_logger().info("%s: going on with Koji task %s", job.change.title, recorded)
        return int(recorded)
    if job.koji_task is not None:  # not this run's: it is neither recorded as such nor cancelled with the run
        get_run_logger().info("%s: taking the packages of Koji task %d", job.change.title, job.koji_task)
        return job.koji_task
    task_id, source = _submit(job, hub, koji_target(job.change.branch))
    ledger().record_facts(job.run_id, RunFacts(koji_task=f"{server} {task_id}"))
    get_run_logger().info("%s: Koji task %d builds %s", job.change.title, task_id, source)
    return task_id


def _submit(job: Job, hub: BuildHub, target: str) -> tuple[int, str]:
    """Submit a build; returns the task's ID and what it builds."""
    dist_git = DistGit.of(job.site)
    if job.pipeline == "allpackages":
        source = dist_git.source(job.change)
        return hub.submit(source, target, ARCH), source
    source_package = dist_git.source_package(job.change, hub.dist_tag(target), job.run_dir.stage(SOURCE))
    get_run_logger().info(
        "%s: made %s of %s", job.change.title, source_package.path.name, source_package.original_nvr
    )
    return hub.submit_srpm(source_package.path, target, ARCH), source_package.path.name


def _progress(job: Job) -> Progress:
    tree = LiveText(STAGE.live, "Task tree of the scratch build")
    lines: dict[str, str] = {}

    def show(line: str) -> None:
        get_run_logger().info("%s: Koji: %s", job.change.title, line.strip())
        lines[line.split()[0]] = line  # a task's line begins with its ID
        tree.show("\n".join(lines.values()))

    return show


def _fetch_logs(hub: BuildHub, task_id: int, stage_dir: Path) -> None:
    try:
        hub.download(task_id, stage_dir, ARCH)
    except DistgateError as error:
        get_run_logger().warning("the logs of task %d could not be fetched: %s", task_id, error)


def _built(job: Job, task_id: int, rpms: list[RpmFile], stage_dir: Path) -> BuiltPackage:
    source = next((rpm.nevra for rpm in rpms if rpm.nevra.is_source), None)
    packages = tuple(rpm.nevra for rpm in under_test(rpms))
    if not packages or source is None:
        raise PackageError(
            f"Koji task {task_id} made no package to install", hint="the spec has no %files, or makes only debuginfo"
        )
    tests = _unit_tests(stage_dir, built=True)
    before = _record_nvr(job, source.nvr, stage_dir)
    get_run_logger().info("%s: built %s: %s", job.change.title, source.nvr, ", ".join(map(str, packages)))
    get_run_logger().info("%s: unit tests: %s (%s)", job.change.title, tests.status, tests.evidence)
    return BuiltPackage(task_id, source.nvr, packages, stage_dir, before, tests)


def _record_nvr(job: Job, nvr: str, stage_dir: Path) -> str:
    """Record the NVR for the messages; returns the NVR without the commit."""
    if job.pipeline == "allpackages":
        ledger().record_facts(job.run_id, RunFacts(nvr=nvr, original_spec_nvr=nvr))
        return nvr
    # A build that was submitted elsewhere has the release of the spec file, which does not name the commit.
    is_packagers = job.koji_task is not None and job.change.rev[:SHORT] not in nvr
    before = nvr if is_packagers else original(nvr, job.change.rev)
    package_url = job.run_dir.url(stage_dir)
    ledger().record_facts(job.run_id, RunFacts(nvr=f"{nvr}.src", original_spec_nvr=before, package_url=package_url))
    return before
