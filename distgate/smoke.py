"""The smoke test's rule: every package that the compose chose is installed, at exactly its NEVRA."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distgate.errors import InfrastructureError
from distgate.packages import QUERY, Nevra
from distgate.readiness import BootReport, UnitVerdict

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
    found: tuple[Nevra, ...]

    def __str__(self) -> str:
        return f"{self.expected} expected, {', '.join(str(one) for one in self.found)} found"


@dataclass(frozen=True)
class SmokeReport:
    """What was expected and what was seen; ``kernel`` is a complaint about the running kernel, or empty.

    ``units`` says which units failed while booting (None: nobody asked), ``boot`` how the boot went.
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
        faults += [f"wrong version: {'; '.join(str(one) for one in self.wrong)}"] if self.wrong else []
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
        found = installed.get(package.name, [])
        if any(_same(package, one) for one in found):
            right.append(package)
        elif found:
            wrong.append(WrongVersion(package, tuple(found)))
        else:
            missing.append(package)
    return SmokeReport(tuple(right), tuple(missing), tuple(wrong), _kernel_fault(expected, running_kernel.strip()))


def _parse(line: str) -> Nevra:
    try:
        return Nevra.parse(line)
    except ValueError as odd:
        raise InfrastructureError(
            "the guest's rpm said something that is no package", hint="its RPM database may be broken", evidence=line
        ) from odd


def _same(one: Nevra, other: Nevra) -> bool:
    # The source RPM is left out: it is told for builds, and is empty in some databases.
    return (one.epoch, one.version, one.release, one.arch) == (other.epoch, other.version, other.release, other.arch)


def _kernel_fault(expected: Sequence[Nevra], running: str) -> str:
    cores = [one for one in expected if _CORE.match(one.name) and _source_name(one) in _KERNELS]
    releases = [f"{one.version}-{one.release[:_UNAME_LIMIT]}.{one.arch}" for one in cores]
    # kernel-rt and debug kernels add +rt or +debug to what uname says.
    if not releases or running.split("+", 1)[0] in releases:
        return ""
    return f"the guest runs kernel {running}, not {' or '.join(releases)}"


def _source_name(package: Nevra) -> str:
    return package.source_rpm.rsplit("-", 2)[0]


def _names(packages: Sequence[Nevra]) -> str:
    shown = ", ".join(str(one) for one in packages[:5])
    return shown if len(packages) <= 5 else f"{shown} and {len(packages) - 5} more"
