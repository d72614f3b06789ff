"""The smoke stage: the image boots, and holds exactly the packages under test."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger

from blocks import GuestMachine, ImageStore
from distgate.drivers.base import BaseImage, CommandResult, ComposedImage, Guest, GuestHost
from distgate.drivers.guests import GuestStopped
from distgate.errors import InfrastructureError, PackageError, TimedOut
from distgate.settings import settings
from distgate.smoke import INSTALLED_COMMAND, KERNEL_COMMAND, SmokeReport, judge
from tasks.claim import Job
from tasks.stage import stage

#: Seconds for one command in the guest: rpm -qa takes seconds under emulation.
COMMAND_SECONDS = 300


@stage("image.test.smoke", "Smoke test")
def smoke_test(job: Job, image: ComposedImage) -> SmokeReport:
    """Boot the image and compare what is installed with what was composed. PackageError when it does not hold."""
    room = job.room.stage("smoke")
    base = ImageStore.of(job.site).base(job.change.branch)
    host = GuestMachine.of(job.site).guests()
    try:
        with host.boot(image.path, base.ssh_key, room, settings().boot_timeout) as guest:
            report = _inspect(guest, image, room)
    except (TimedOut, GuestStopped) as dead:
        raise _blame_for(dead, image, base, host, room) from dead
    get_run_logger().info("%s: %s", job.change.title, report.sentence)
    if not report.passed:
        raise PackageError(f"the smoke test failed: {report.sentence}", evidence=_tail(room / "installed_rpms.txt"))
    return report


def _inspect(guest: Guest, image: ComposedImage, room: Path) -> SmokeReport:
    installed = _said(guest.run(INSTALLED_COMMAND, COMMAND_SECONDS), room / "installed_rpms.txt")
    kernel = _said(guest.run(KERNEL_COMMAND, COMMAND_SECONDS), room / "kernel_version.txt")
    return judge(image.requested, installed.splitlines(), kernel)


def _said(result: CommandResult, path: Path) -> str:
    path.write_text(result.stdout + result.stderr)
    return result.stdout


def _blame_for(
    dead: InfrastructureError, image: ComposedImage, base: BaseImage, host: GuestHost, room: Path
) -> InfrastructureError | PackageError:
    """Boot the base without the change: if that works, it is the change that keeps the image from booting."""
    try:
        with host.boot(base.path, base.ssh_key, room / "base", settings().boot_timeout):
            pass
    except InfrastructureError:
        return InfrastructureError(
            f"neither the image nor its base boots here: {dead.message}",
            hint="is this host overloaded, or without usable KVM?",
            evidence=dead.evidence,
        )
    packages = ", ".join(map(str, image.requested))
    return PackageError(f"the image with {packages} does not boot, its base does", evidence=dead.evidence)


def _tail(path: Path) -> str:
    return path.read_text()[-1000:]
