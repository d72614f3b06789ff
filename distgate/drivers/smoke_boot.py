"""The smoke test's work: boot the image, compare what it holds, and say who is to blame when it does not boot.

Runs and ``distgate reproduce`` do the same with it; nothing here knows of Prefect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from distgate.drivers.base import BaseImage, CommandResult, ComposedImage, Guest, GuestHost, GuestStopped
from distgate.drivers.boot_report import report_boot
from distgate.errors import InfrastructureError, PackageError, TimedOut
from distgate.readiness import judge_units
from distgate.smoke import INSTALLED_COMMAND, KERNEL_COMMAND, SmokeReport, judge

#: Seconds for one command in the guest: rpm -qa takes seconds under emulation.
COMMAND_SECONDS = 300
#: Shown of the list of packages when the smoke test fails, in characters.
_TAIL = 1000

Kept = Callable[[Guest, str], None]
"""Is given a guest that runs, and why, when it may be worth keeping (drivers.guest_holder)."""


@dataclass(frozen=True)
class SmokeBoot:
    """How the smoke test is done here. ``timeout`` is that of a boot, in seconds; ``failed`` gets the guest of an
    image that boots and does not hold what it should, before that guest ends; ``passed`` that of one that does."""

    host: GuestHost
    timeout: float
    failed: Kept = lambda _guest, _why: None
    passed: Kept = lambda _guest, _why: None

    def test(self, image: ComposedImage, base: BaseImage, room: Path) -> SmokeReport:
        """Boot ``image`` and look into it; logs are left in ``room``.

        Raises PackageError when the image does not hold what was composed, or does not boot although ``base`` does,
        and InfrastructureError when that does not boot either.
        """
        try:
            with self.host.boot(image.path, base.ssh_key, room, self.timeout) as guest:
                report = self._with_units(inspect(guest, image, room), base, room)
                (self.passed if report.passed else self.failed)(guest, f"smoke test: {report.sentence}")
        except (TimedOut, GuestStopped) as dead:
            raise self._blame_for(dead, image, base, room) from dead
        if not report.passed:
            seen = (room / "installed_rpms.txt").read_text()[-_TAIL:]
            raise PackageError(f"the smoke test failed: {report.sentence}", evidence=seen)
        return report

    def _with_units(self, report: SmokeReport, base: BaseImage, room: Path) -> SmokeReport:
        """The report with its failed units judged: those that fail in the base, too, are not the packages'."""
        if report.boot is None:
            return report
        failed = report.boot.failed_units
        return replace(report, units=judge_units(self._failed_in(base, room) if failed else (), failed))

    def _failed_in(self, base: BaseImage, room: Path) -> tuple[str, ...]:
        with self.host.boot(base.path, base.ssh_key, room / "base", self.timeout) as guest:
            seen = report_boot(guest, COMMAND_SECONDS)
        return seen.failed_units if seen else ()

    def _blame_for(
        self, dead: InfrastructureError, image: ComposedImage, base: BaseImage, room: Path
    ) -> InfrastructureError | PackageError:
        """Boot the base without the change: if that works, it is the change that keeps the image from booting."""
        try:
            with self.host.boot(base.path, base.ssh_key, room / "base", self.timeout):
                pass
        except InfrastructureError:
            return InfrastructureError(
                f"neither the image nor its base boots here: {dead.message}",
                hint="is this host overloaded, or without usable KVM?",
                evidence=dead.evidence,
            )
        packages = ", ".join(map(str, image.requested))
        return PackageError(f"the image with {packages} does not boot, its base does", evidence=dead.evidence)


def inspect(guest: Guest, image: ComposedImage, room: Path) -> SmokeReport:
    """Compare what a running guest of ``image`` holds with what was composed; what it said is left in ``room``."""
    installed = _said(guest.run(INSTALLED_COMMAND, COMMAND_SECONDS), room / "installed_rpms.txt")
    kernel = _said(guest.run(KERNEL_COMMAND, COMMAND_SECONDS), room / "kernel_version.txt")
    report = judge(image.requested, installed.splitlines(), kernel)
    return replace(report, boot=report_boot(guest, COMMAND_SECONDS))


def _said(result: CommandResult, path: Path) -> str:
    path.write_text(result.stdout + result.stderr)
    return result.stdout
