"""The package stage: a Koji scratch build of exactly this commit, and a repository of what it made."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow

from blocks import DistGit, KojiInstance
from distgate.branches import koji_target
from distgate.capsule import BuildRecord, record_rpms
from distgate.drivers.base import BuildHub, Progress, TaskLost
from distgate.drivers.repository import make_repository
from distgate.errors import Cancelled, ConfigurationError, DistgateError, GaveUp, PackageError, TimedOut
from distgate.packages import Nevra, RpmFile, read_rpms, under_test
from distgate.settings import settings
from tasks.claim import Job
from tasks.live_text import LiveText
from tasks.stage import ledger, stage

log = logging.getLogger(__name__)

ARCH = "x86_64"
#: The fact of a run that holds its hub's address and its task ID there.
TASK = "koji_task"


@dataclass(frozen=True)
class BuiltPackage:
    """A finished scratch build: its NVR, the packages under test, and the repository that holds them."""

    task_id: int
    nvr: str
    packages: tuple[Nevra, ...]
    repository: Path

    @property
    def source_name(self) -> str:
        """The name of the source package."""
        return self.nvr.rsplit("-", 2)[0]


@stage("package", "Build package")
def build_package(job: Job) -> BuiltPackage:
    """Scratch-build the commit and download its RPMs and logs."""
    room = job.room.stage("build")
    koji = KojiInstance.of(job.site)
    hub = koji.hub()
    task_id = _task_of(job, hub, koji.server)
    submitted = _record_of(job, koji, task_id)
    job.capsule.note(build=submitted)
    _await(job, hub, task_id, room)
    rpms = read_rpms([path for path in hub.download(task_id, room, ARCH) if path.suffix == ".rpm"])
    make_repository(room)
    built = _built(job, task_id, rpms, room)
    found = {"nvr": built.nvr, "packages": built.packages, "rpms": record_rpms(rpms)}
    job.capsule.note(build=submitted.model_copy(update=found))
    return built


def cancel_build(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Flow hook: a run that is cancelled does not leave its Koji task building."""
    run = ledger().run(str(flow_run.id))
    server, _, task = (run.facts.get(TASK, "") if run else "").rpartition(" ")
    koji = KojiInstance.of(flow_run.parameters.get("site") or settings().site)
    if task and server == koji.server:
        koji.hub().cancel(int(task))
        log.warning("run %s was cancelled, and Koji task %s with it", flow_run.id, task)


def _record_of(job: Job, koji: KojiInstance, task_id: int) -> BuildRecord:
    source, target = DistGit.of(job.site).source(job.change), koji_target(job.change.branch)
    return BuildRecord(
        server=koji.server, topurl=koji.topurl, task_id=task_id, source=source, target=target, arch=ARCH
    )


def _await(job: Job, hub: BuildHub, task_id: int, room: Path) -> None:
    try:
        hub.wait(task_id, settings().build_timeout, _progress(job))
    except (PackageError, Cancelled, ConfigurationError, TaskLost):
        _forget(job, hub, task_id, room)
        raise
    except TimedOut as late:
        _forget(job, hub, task_id, room)
        raise GaveUp(late.message, hint="DISTGATE_BUILD_TIMEOUT is the limit", evidence=late.evidence) from late


def _forget(job: Job, hub: BuildHub, task_id: int, room: Path) -> None:
    """A task that has ended badly is met by no retry; its logs are kept."""
    ledger().learn(job.run_id, **{TASK: ""})
    _fetch_logs(hub, task_id, room)


def _task_of(job: Job, hub: BuildHub, server: str) -> int:
    """The Koji task that this run submitted to this hub before it was interrupted, or a new one."""
    run = ledger().run(job.run_id)
    where, _, known = (run.facts.get(TASK, "") if run else "").rpartition(" ")
    if known and where == server:
        get_run_logger().info("%s: going on with Koji task %s", job.change.title, known)
        return int(known)
    source = DistGit.of(job.site).source(job.change)
    task_id = hub.submit(source, koji_target(job.change.branch), ARCH)
    ledger().learn(job.run_id, **{TASK: f"{server} {task_id}"})
    get_run_logger().info("%s: Koji task %d builds %s", job.change.title, task_id, source)
    return task_id


def _progress(job: Job) -> Progress:
    tree = LiveText("koji-tasks", "Task tree of the scratch build")
    lines: dict[str, str] = {}

    def show(line: str) -> None:
        get_run_logger().info("%s: Koji: %s", job.change.title, line.strip())
        lines[line.split()[0]] = line  # a task's line begins with its ID
        tree.show("\n".join(lines.values()))

    return show


def _fetch_logs(hub: BuildHub, task_id: int, room: Path) -> None:
    try:
        hub.download(task_id, room, ARCH)
    except DistgateError as lost:
        get_run_logger().warning("the logs of task %d could not be fetched: %s", task_id, lost)


def _built(job: Job, task_id: int, rpms: list[RpmFile], room: Path) -> BuiltPackage:
    source = next((rpm.nevra for rpm in rpms if rpm.nevra.is_source), None)
    packages = tuple(rpm.nevra for rpm in under_test(rpms))
    if not packages or source is None:
        raise PackageError(
            f"Koji task {task_id} made no package to install", hint="the spec has no %files, or makes only debuginfo"
        )
    ledger().learn(job.run_id, nvr=source.nvr, original_spec_nvr=source.nvr)
    get_run_logger().info("%s: built %s: %s", job.change.title, source.nvr, ", ".join(map(str, packages)))
    return BuiltPackage(task_id, source.nvr, packages, room)
