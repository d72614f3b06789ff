"""The package stage: a Koji scratch build of exactly this commit, and a repository of what it made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger

from blocks import DistGit, KojiInstance
from distgate.branches import koji_target
from distgate.drivers.base import BuildHub, Progress
from distgate.drivers.repository import make_repository
from distgate.errors import Cancelled, DistgateError, PackageError
from distgate.packages import Nevra, RpmFile, read_rpms, under_test
from distgate.settings import settings
from tasks.claim import Job
from tasks.live_text import LiveText
from tasks.stage import ledger, stage

ARCH = "x86_64"


@dataclass(frozen=True)
class BuiltPackage:
    """A finished scratch build: its NVR, the packages under test, and the repository that holds them."""

    task_id: int
    nvr: str
    packages: tuple[Nevra, ...]
    repository: Path


@stage("package", "Build package")
def build_package(job: Job) -> BuiltPackage:
    """Scratch-build the commit and download its RPMs and logs."""
    room = job.room.stage("build")
    hub = KojiInstance.of(job.site).hub()
    task_id = _task_of(job, hub)
    progress = _progress(job)
    try:
        hub.wait(task_id, settings().build_timeout, progress)
    except (PackageError, Cancelled):
        ledger().learn(job.run_id, koji_task="")  # a retry must not meet the same dead task again
        _fetch_logs(hub, task_id, room)
        raise
    rpms = read_rpms([path for path in hub.download(task_id, room, ARCH) if path.suffix == ".rpm"])
    make_repository(room)
    return _built(job, task_id, rpms, room)


def _task_of(job: Job, hub: BuildHub) -> int:
    """The Koji task that this run submitted before it was interrupted, or a new one."""
    run = ledger().run(job.run_id)
    known = run.facts.get("koji_task") if run else None
    if known:
        get_run_logger().info("%s: going on with Koji task %s", job.change.title, known)
        return int(known)
    source = DistGit.of(job.site).source(job.change)
    task_id = hub.submit(source, koji_target(job.change.branch), ARCH)
    ledger().learn(job.run_id, koji_task=str(task_id))
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
