"""The smoke test: every package that the compose chose is installed, at exactly its NEVRA, in an image that boots.

``judge`` is the rule; SmokeBoot boots the image and decides who is to blame when it does not boot.
Runs and ``distgate reproduce`` do the same with it; nothing here knows of Prefect.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distgate.errors import InfrastructureError, PackageError, TimedOut
from distgate.guests.base import CommandResult, Guest, GuestHost, GuestStopped
from distgate.guests.boot import BootReport, UnitVerdict, judge_units, report_boot
from distgate.images.base import BaseImage, ComposedImage
from distgate.rpm.nevra import QUERY, Nevra
from distgate.text import first_of

#: What to run in the guest; ``judge`` takes what they print.
INSTALLED_COMMAND = "rpm -qa --qf " + shlex.quote(QUERY)
KERNEL_COMMAND = "uname -r"

#: Source packages whose build must also be the kernel that runs (and no other: kernel-headers has its own).
_KERNELS = frozenset({"kernel", "kernel-rt"})
_CORE = re.compile(r"^kernel(-rt)?(-debug)?-core$")
#: uname cuts a release at this length.
_UNAME_LIMIT = 64


@dataclass(frozen=True)
class WrongVersion:
    """A package that is installed, but not as the one that is expected."""

    expected: Nevra
    installed: tuple[Nevra, ...]

    def __str__(self) -> str:
        return f"{self.expected} expected, {', '.join(str(package) for package in self.installed)} found"


@dataclass(frozen=True)
class SmokeReport:
    """What was expected and what was seen; ``kernel`` is a complaint about the running kernel, or empty.

    ``units`` are the units that failed while booting (None: not checked), ``boot`` how the boot went.
    """

    right: tuple[Nevra, ...]
    missing: tuple[Nevra, ...]
    wrong: tuple[WrongVersion, ...]
    kernel: str = ""
    units: UnitVerdict | None = None
    boot: BootReport | None = None

    @property
    def passed(self) -> bool:
        return bool(self.right) and not (self.missing or self.wrong or self.kernel or self._unit_fault)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        if self.passed:
            count = "the package" if len(self.right) == 1 else f"all {len(self.right)} packages"
            return f"the guest boots with {count} under test: {_names(self.right)}"
        if not (self.right or self.missing or self.wrong):
            return "no package was to be installed, so nothing was tested"
        faults = [f"not installed: {_names(self.missing)}"] if self.missing else []
        faults += [f"wrong version: {'; '.join(str(version) for version in self.wrong)}"] if self.wrong else []
        return "; ".join([*faults, *filter(None, (self.kernel, self._unit_fault))])

    @property
    def _unit_fault(self) -> str:
        return self.units.sentence if self.units and not self.units.passed else ""


def judge(expected: Sequence[Nevra], rpm_lines: Iterable[str], running_kernel: str) -> SmokeReport:
    """Compare ``expected`` with what INSTALLED_COMMAND and KERNEL_COMMAND printed in the guest.

    Raises InfrastructureError when a line of the RPM database cannot be read.
    """
    installed: dict[str, list[Nevra]] = {}
    for package in map(_parse, filter(str.strip, rpm_lines)):
        installed.setdefault(package.name, []).append(package)
    right, missing, wrong = [], [], []
    for package in expected:
        same_name = installed.get(package.name, [])
        if any(_same(package, candidate) for candidate in same_name):
            right.append(package)
        elif same_name:
            wrong.append(WrongVersion(package, tuple(same_name)))
        else:
            missing.append(package)
    return SmokeReport(tuple(right), tuple(missing), tuple(wrong), _kernel_fault(expected, running_kernel.strip()))


def _parse(line: str) -> Nevra:
    try:
        return Nevra.parse(line)
    except ValueError as error:
        raise InfrastructureError(
            "the guest's rpm said something that is no package", hint="its RPM database may be broken", evidence=line
        ) from error


def _same(package: Nevra, other: Nevra) -> bool:
    # The source RPM is left out: it is set for builds, and is empty in some databases.
    return (package.epoch, package.version, package.release, package.arch) == (
        other.epoch,
        other.version,
        other.release,
        other.arch,
    )


def _kernel_fault(expected: Sequence[Nevra], running: str) -> str:
    cores = [package for package in expected if _CORE.match(package.name) and _source_name(package) in _KERNELS]
    releases = [f"{core.version}-{core.release[:_UNAME_LIMIT]}.{core.arch}" for core in cores]
    # kernel-rt and debug kernels add +rt or +debug to what uname prints.
    if not releases or running.split("+", 1)[0] in releases:
        return ""
    return f"the guest runs kernel {running}, not {' or '.join(releases)}"


def _source_name(package: Nevra) -> str:
    return package.source_rpm.rsplit("-", 2)[0]


def _names(packages: Sequence[Nevra]) -> str:
    return first_of([str(package) for package in packages])


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

    def test(self, image: ComposedImage, base: BaseImage, log_dir: Path) -> SmokeReport:
        """Boot ``image`` and look into it; logs are left in ``log_dir``.

        Raises PackageError when the image does not hold what was composed, or does not boot although ``base`` does,
        and InfrastructureError when that does not boot either.
        """
        try:
            with self.host.boot(image.path, base.ssh_key, log_dir, self.timeout) as guest:
                report = self._with_units(inspect(guest, image, log_dir), base, log_dir)
                (self.passed if report.passed else self.failed)(guest, f"smoke test: {report.sentence}")
        except (TimedOut, GuestStopped) as error:
            raise self._blame_for(error, image, base, log_dir) from error
        if not report.passed:
            seen = (log_dir / "installed_rpms.txt").read_text()[-_TAIL:]
            raise PackageError(f"the smoke test failed: {report.sentence}", evidence=seen)
        return report

    def _with_units(self, report: SmokeReport, base: BaseImage, log_dir: Path) -> SmokeReport:
        """The report with its failed units judged: those that fail in the base, too, are not the packages'."""
        if report.boot is None:
            return report
        failed = report.boot.failed_units
        return replace(report, units=judge_units(self._failed_in(base, log_dir) if failed else (), failed))

    def _failed_in(self, base: BaseImage, log_dir: Path) -> tuple[str, ...]:
        with self.host.boot(base.path, base.ssh_key, log_dir / "base", self.timeout) as guest:
            seen = report_boot(guest, COMMAND_SECONDS)
        return seen.failed_units if seen else ()

    def _blame_for(
        self, dead: InfrastructureError, image: ComposedImage, base: BaseImage, log_dir: Path
    ) -> InfrastructureError | PackageError:
        """Boot the base without the change: if that works, it is the change that keeps the image from booting."""
        try:
            with self.host.boot(base.path, base.ssh_key, log_dir / "base", self.timeout):
                pass
        except InfrastructureError:
            return InfrastructureError(
                f"neither the image nor its base boots here: {dead.message}",
                hint="is this host overloaded, or without usable KVM?",
                evidence=dead.evidence,
            )
        packages = ", ".join(map(str, image.requested))
        return PackageError(f"the image with {packages} does not boot, its base does", evidence=dead.evidence)


def inspect(guest: Guest, image: ComposedImage, log_dir: Path) -> SmokeReport:
    """Compare what a running guest of ``image`` holds with what was composed; its output is left in ``log_dir``."""
    installed = _output(guest.run(INSTALLED_COMMAND, COMMAND_SECONDS), log_dir / "installed_rpms.txt")
    kernel = _output(guest.run(KERNEL_COMMAND, COMMAND_SECONDS), log_dir / "kernel_version.txt")
    report = judge(image.requested, installed.splitlines(), kernel)
    return replace(report, boot=report_boot(guest, COMMAND_SECONDS))


def _output(result: CommandResult, path: Path) -> str:
    path.write_text(result.stdout + result.stderr)
    return result.stdout
