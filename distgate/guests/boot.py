"""How far a guest has come: the named conditions of a boot, what systemd says of it, and who broke a unit.

The boot report of a guest: one ssh command for what systemd knows, two files for people and for programs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from distgate.errors import InfrastructureError
from distgate.guests.base import CommandResult, Guest
from distgate.steps import Step
from distgate.text import printable

#: The conditions of a boot, in their usual order. The second and third may be missing: a guest can be mute on its
#: console, and one may answer ssh without having sent a word of its own.
EMULATOR = "the emulator's start"
CONSOLE = "output on the console"
NETWORK = "a first packet from the guest"
BANNER = "the guest's ssh banner"
COMMAND = "a command over ssh"
SYSTEMD = "systemd's state"

#: What `systemctl is-system-running` says of a guest that has booted.
UP = ("running", "degraded")
#: Units that take this long, in seconds, or longer are shown by name.
WORTH_SHOWING = 0.05
MOST_SHOWN = 10

#: A kernel says so when it has given up for good; one that restarts after a panic (panic=SECONDS) does not.
_PANIC = re.compile(r"---\[ end (Kernel panic.*?) \]---")


def panic(console: str) -> str:
    """What a kernel said when it gave up, of the end of its console; empty while it has not."""
    panics = _PANIC.findall(console)
    return printable(panics[-1], newlines=False) if panics else ""


@dataclass(frozen=True)
class BootMilestone:
    """A condition that came true: ``seconds`` after power-on, and what showed it."""

    condition: str
    seconds: float
    evidence: str = ""


@dataclass(frozen=True)
class UnitTime:
    """A unit and the seconds from the start of its start to its being active."""

    unit: str
    seconds: float


@dataclass(frozen=True)
class BootReport:
    """One boot. Times are in seconds; those of the guest's own clock are 0.0 where the guest did not tell.

    ``state`` is systemd's word (``running``, ``degraded``, ``starting`` when it was not waited for to the end, empty
    without systemd); ``failed_units`` are sorted; ``slowest_units`` come longest first.
    """

    accelerator: str
    reached: tuple[BootMilestone, ...]
    state: str = ""
    failed_units: tuple[str, ...] = ()
    slowest_units: tuple[UnitTime, ...] = ()
    kernel_seconds: float = 0.0
    initrd_seconds: float = 0.0
    userspace_seconds: float = 0.0

    @property
    def steps(self) -> tuple[Step, ...]:
        """What each condition took after the one before it; together the time from power-on to the last."""
        befores = (0.0, *(milestone.seconds for milestone in self.reached))
        return tuple(
            Step(milestone.condition, round(milestone.seconds - before, 3))
            for milestone, before in zip(self.reached, befores, strict=False)
        )

    def lines(self) -> list[str]:
        """The report as a terminal or a text file shows it."""
        lines = [f"booted under {self.accelerator}; systemd: {self.state or 'no answer'}"]
        lines += [
            f"{milestone.seconds:8.2f} s  {milestone.condition}  {milestone.evidence}".rstrip()
            for milestone in self.reached
        ]
        parts = {"kernel": self.kernel_seconds, "initrd": self.initrd_seconds, "userspace": self.userspace_seconds}
        lines += [
            f"{seconds:8.2f} s  of the guest's own time in {name}" for name, seconds in parts.items() if seconds
        ]
        lines += [f"{slow.seconds:8.2f} s  {slow.unit}" for slow in self.slowest_units]
        return [*lines, *(f"FAILED: {unit}" for unit in self.failed_units)]


@dataclass(frozen=True)
class SystemdFacts:
    """What ``read_systemd`` found; the fields are those of BootReport."""

    state: str
    failed_units: tuple[str, ...] = ()
    slowest_units: tuple[UnitTime, ...] = ()
    kernel_seconds: float = 0.0
    initrd_seconds: float = 0.0
    userspace_seconds: float = 0.0


@dataclass(frozen=True)
class UnitVerdict:
    """Failed units of an image: ``broken`` by the packages under test, ``inherited`` from the base without them."""

    broken: tuple[str, ...]
    inherited: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.broken

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        also = f"; the base has these failed units too: {', '.join(self.inherited)}" if self.inherited else ""
        if self.broken:
            return f"units fail that do not fail in the base: {', '.join(self.broken)}{also}"
        return f"no unit fails that does not fail in the base{also}" if also else "no unit fails"


def judge_units(base_failed: Collection[str], image_failed: Collection[str]) -> UnitVerdict:
    """A unit that fails in the image and not in its base is the packages' fault, by name; all else is not."""
    base_units = set(base_failed)
    return UnitVerdict(
        broken=tuple(sorted(set(image_failed) - base_units)), inherited=tuple(sorted(set(image_failed) & base_units))
    )


def read_systemd(output: str) -> SystemdFacts:
    """What systemd said of a boot: its state on the first line, then the manager's properties and each unit's as
    ``systemctl show`` prints them, in blocks with an empty line between.

    A unit that was never active has no time. Raises InfrastructureError when a time is no number.
    """
    state, _, rest = output.partition("\n")
    blocks = [_properties(block.splitlines()) for block in rest.split("\n\n")]
    manager: dict[str, str] = {}
    for block in blocks:
        if "Id" not in block:
            manager |= block
    units = [block for block in blocks if "Id" in block]
    kernel, initrd, userspace = _phases(manager)
    return SystemdFacts(
        state=state.strip(),
        failed_units=tuple(sorted({unit["Id"] for unit in units if unit.get("ActiveState") == "failed"})),
        slowest_units=_slowest(units),
        kernel_seconds=kernel,
        initrd_seconds=initrd,
        userspace_seconds=userspace,
    )


def _phases(manager: dict[str, str]) -> tuple[float, float, float]:
    initrd, userspace = _moment(manager, "InitRDTimestampMonotonic"), _moment(manager, "UserspaceTimestampMonotonic")
    finish = _moment(manager, "FinishTimestampMonotonic")
    # Without systemd in the initrd its time counts as the kernel's, as systemd-analyze has it too.
    kernel = initrd or userspace
    spent = finish - userspace if finish > userspace else 0.0
    return round(kernel, 3), round(userspace - initrd if initrd else 0.0, 3), round(spent, 3)


def _slowest(units: Iterable[dict[str, str]]) -> tuple[UnitTime, ...]:
    times: dict[str, float] = {}
    for unit in units:
        began, active = (
            _moment(unit, "InactiveExitTimestampMonotonic"),
            _moment(unit, "ActiveEnterTimestampMonotonic"),
        )
        if began and active - began >= WORTH_SHOWING:
            times[unit["Id"]] = round(active - began, 3)
    longest = sorted(times.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST_SHOWN]
    return tuple(UnitTime(name, seconds) for name, seconds in longest)


def _moment(properties: dict[str, str], name: str) -> float:
    """A time stamp in seconds; systemd counts microseconds, and prints 0 for what has not happened."""
    text = properties.get(name, "0")
    try:
        return int(text) / 1e6
    except ValueError as error:
        raise InfrastructureError(f"systemd in the guest gave no number for {name}", evidence=text) from error


def _properties(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


TEXT_NAME, JSON_NAME = "boot.txt", "boot.json"

_MANAGER = "InitRDTimestampMonotonic,UserspaceTimestampMonotonic,FinishTimestampMonotonic"
_UNIT = "Id,ActiveState,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
#: Only these kinds of units can fail.
_KINDS = "'*.service' '*.mount' '*.automount' '*.socket' '*.swap' '*.timer' '*.path'"


@runtime_checkable
class ReportsBoot(Protocol):
    """A guest that knows how its boot went."""

    def boot_report(self, timeout: float) -> BootReport:
        """How it went, asked for at most ``timeout`` seconds. Raises InfrastructureError when the guest is lost."""


def report_boot(guest: Guest, timeout: float) -> BootReport | None:
    """``boot_report`` of a guest that has one, such as those of LibvirtGuests; None of any other."""
    return guest.boot_report(timeout) if isinstance(guest, ReportsBoot) else None


def systemd_command(patience: float) -> str:
    """The shell command whose output ``distgate.guests.boot.read_systemd`` reads.

    systemd itself is waited for until its boot is over, for at most ``patience`` seconds; nothing polls. Of the
    units properties are asked for: `systemd-analyze blame` knows the same and needs twenty times as long.
    """
    return (
        f"state=$(timeout {patience:.0f} systemctl is-system-running --wait); "
        'echo "${state:-$(systemctl is-system-running)}"; '
        f"systemctl show -p {_MANAGER}; echo; systemctl show {_KINDS} -p {_UNIT}"
    )


def collect(
    run_command: Callable[[str, float], CommandResult],
    reached: Sequence[BootMilestone],
    powered_on: float,
    accelerator: str,
    timeout: float,
) -> BootReport:
    """What there is to say of a boot, for at most ``timeout`` seconds.

    ``ask`` runs a command in the guest; ``powered_on`` is its start by ``time.monotonic()``, and ``reached`` what was
    seen since. Raises InfrastructureError when the guest cannot be reached or does not know systemctl.
    """
    # A part of the time is for the answer: a guest that is still starting is reported as that, not lost.
    answer = run_command(systemd_command(max(1.0, timeout * 0.7)), timeout)
    facts = read_systemd(answer.stdout)
    if not facts.state:
        raise InfrastructureError("the guest does not tell its systemd state", evidence=answer.stderr)
    up = [BootMilestone(SYSTEMD, round(time.monotonic() - powered_on, 3), facts.state)] if facts.state in UP else []
    return BootReport(
        accelerator=accelerator,
        reached=(*reached, *up),
        state=facts.state,
        failed_units=facts.failed_units,
        slowest_units=facts.slowest_units,
        kernel_seconds=facts.kernel_seconds,
        initrd_seconds=facts.initrd_seconds,
        userspace_seconds=facts.userspace_seconds,
    )


def write(report: BootReport, workdir: Path) -> None:
    """Keep ``report`` in ``workdir`` as TEXT_NAME and JSON_NAME."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / TEXT_NAME).write_text("".join(f"{line}\n" for line in report.lines()))
    (workdir / JSON_NAME).write_text(json.dumps(asdict(report), indent=2, sort_keys=True) + "\n")
