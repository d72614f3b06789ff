"""Qualification: a base image is booted once, and questioned, before any package is put into it.

What a guest says is gathered by ``question`` and judged by ``complaints``, which is pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError, TimedOut
from distgate.guests.accelerator import Accelerator
from distgate.guests.base import CommandResult, Guest, GuestHost
from distgate.images.base import BaseImage
from distgate.images.smoke import INSTALLED_COMMAND, KERNEL_COMMAND, judge
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress
from distgate.text import first_of, printable
from distgate.waiting import wait_for

STATE_COMMAND = "systemctl is-system-running"
FAILED_UNITS_COMMAND = "systemctl list-units --failed --plain --no-legend --no-pager --full"
#: States of systemd that pass by themselves.
_UNDER_WAY = frozenset({"initializing", "starting"})
#: Seconds under KVM for one question, and for systemd to settle after ssh answered.
_ANSWER_SECONDS = 30.0
_SETTLE_SECONDS = 60.0
#: Looks at a guest that stops answering: its ssh may have been ended together with whatever else runs here.
_LOOKS = 2
#: What qemu says when somebody ends it; libvirt's own way, destroying the guest, says it too.
_ENDED_FROM_OUTSIDE = "terminating on signal"
#: Names in a sentence; the whole lists are in the records.


@dataclass(frozen=True)
class GuestState:
    """What a guest said of itself: systemd's state and failed units, what ``rpm -qa`` printed, its kernel."""

    systemd_state: str
    failed_units: tuple[str, ...]
    rpm: CommandResult
    kernel: str


@dataclass(frozen=True)
class Qualification:
    """The outcome: ``reasons`` say why it was refused. ``at`` is in seconds of the epoch, ``seconds`` how long it
    took; ``packages`` is how many the guest listed."""

    passed: bool
    at: float
    accelerator: str
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0
    systemd_state: str = ""
    failed_units: tuple[str, ...] = ()
    kernel: str = ""
    packages: int = 0


def qualify(
    base: BaseImage,
    offline: Sequence[Nevra],
    guests: GuestHost,
    accelerated_by: Accelerator,
    workdir: Path,
    timeout: float,
    progress: Progress = lambda _line: None,
) -> Qualification:
    """Boot ``base`` once and judge it; ``offline`` is what its RPM database was read to hold.

    ``timeout`` is for the boot, in seconds under KVM; logs stay in ``workdir``. Raises what the host of the guests
    raises when it is itself at fault, and InfrastructureError when the guest or a question to it was ended from
    outside: neither says anything of the base.
    """
    started, statement = time.monotonic(), None
    try:
        statement = _look(lambda: _boot_and_question(base, guests, accelerated_by, workdir, timeout, progress))
        reasons = findings(statement, offline)
    except _NotBootable as error:
        reasons = (error.reason,)
    return Qualification(
        passed=not reasons,
        at=time.time(),
        accelerator=accelerated_by.name,
        reasons=reasons,
        seconds=round(time.monotonic() - started, 1),
        systemd_state=statement.systemd_state if statement else "",
        failed_units=statement.failed_units if statement else (),
        kernel=statement.kernel if statement else "",
        packages=len(statement.rpm.stdout.splitlines()) if statement else 0,
    )


def question(guest: Guest, scale: float) -> GuestState:
    """What the guest says of itself once systemd has settled. InfrastructureError when it stops answering."""

    def ask(command: str) -> CommandResult:
        answer = guest.run(command, timeout=_ANSWER_SECONDS * scale)
        if answer.returncode < 0:
            raise _Interrupted(f"the question {command!r} was ended by signal {-answer.returncode}")
        return answer

    last = ""

    def settled() -> str | None:
        nonlocal last
        last = ask(STATE_COMMAND).stdout.strip()
        return None if last in _UNDER_WAY else last or "unknown"

    try:
        state = wait_for("systemd to settle", settled, _SETTLE_SECONDS * scale)
    except TimedOut:
        state = last
    return GuestState(
        systemd_state=state,
        failed_units=tuple(line.split()[0] for line in ask(FAILED_UNITS_COMMAND).stdout.splitlines() if line.split()),
        rpm=ask(INSTALLED_COMMAND),
        kernel=ask(KERNEL_COMMAND).stdout.strip(),
    )


def findings(statement: GuestState, offline: Sequence[Nevra]) -> tuple[str, ...]:
    """Why a base whose guest said this must not be used, a sentence each; none when it may.

    The RPM database must list exactly ``offline``, and the kernel that runs must be one of its kernels.
    """
    faults = []
    if statement.failed_units:
        faults.append(f"units failed: {first_of(statement.failed_units)}")
    elif statement.systemd_state != "running":
        faults.append(f"systemd says {statement.systemd_state!r}, not 'running'")
    return (*faults, *_package_complaints(statement, offline))


def _package_complaints(statement: GuestState, offline: Sequence[Nevra]) -> tuple[str, ...]:
    if statement.rpm.returncode != 0:
        return (f"rpm -qa ended with status {statement.rpm.returncode}: {_last_line(statement.rpm.stderr)}",)
    lines = [line for line in statement.rpm.stdout.splitlines() if line.strip()]
    try:
        report = judge(offline, lines, statement.kernel)
        running = {str(Nevra.parse(line)) for line in lines}
    except InfrastructureError as error:
        return (f"{error.message}: {_last_line(error.evidence)}",)
    on_disk = {str(package) for package in offline}
    missing, added = sorted(on_disk - running), sorted(running - on_disk)
    faults = [] if on_disk else ["its RPM database holds no package"]
    faults += [f"packages on its disk that the guest does not have: {first_of(missing)}"] if missing else []
    faults += [f"packages of the guest that are not on its disk: {first_of(added)}"] if added else []
    return (*faults, *([report.kernel] if report.kernel else []))


class _NotBootable(Exception):
    """The base does not even get as far as being questioned."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _LostContact(_NotBootable):
    """It answered, and then it did not."""


class _Interrupted(InfrastructureError):
    """Somebody ended the guest or a question to it, which is no verdict."""


def _look(at_the_guest: Callable[[], GuestState]) -> GuestState:
    for _ in range(_LOOKS - 1):
        with suppress(_LostContact):
            return at_the_guest()
    return at_the_guest()


def _boot_and_question(
    base: BaseImage,
    guests: GuestHost,
    accelerated_by: Accelerator,
    workdir: Path,
    timeout: float,
    progress: Progress,
) -> GuestState:
    with ExitStack() as stack:
        progress(f"qualification: base image {base.identity} boots")
        try:
            guest = stack.enter_context(guests.boot(base.path, base.ssh_key, workdir, timeout))
        except InfrastructureError as error:
            if _ENDED_FROM_OUTSIDE in error.evidence:
                raise _Interrupted(f"base image {base.identity} was ended while it booted") from error
            if _speaks_of_the_image(error):
                raise _NotBootable(_with_last_words("it does not boot", error)) from error
            raise
        progress(f"qualification: base image {base.identity} answers ssh and is questioned")
        try:
            return question(guest, accelerated_by.scale)
        except _Interrupted:
            raise
        except InfrastructureError as error:
            raise _LostContact(_with_last_words("it stopped answering", error)) from error


def _speaks_of_the_image(failed: InfrastructureError) -> bool:
    # Here, because libvirt's library is no small thing to load, and whoever has such a guest has loaded it.
    from distgate.guests.base import GuestStopped

    return isinstance(failed, TimedOut | GuestStopped) or "Permission denied" in failed.evidence


def _with_last_words(what: str, failed: InfrastructureError) -> str:
    last = _last_line(failed.evidence)
    return f"{what}: {failed.message}" + (f"; the last that was seen: {last}" if last else "")


def _last_line(text: str) -> str:
    lines = [line for line in printable(text).splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else ""
