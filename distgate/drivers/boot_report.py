"""The boot report of a guest: one ssh command for what systemd knows, two files for people and for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

from distgate.drivers.base import CommandResult, Guest
from distgate.errors import InfrastructureError
from distgate.readiness import SYSTEMD, UP, BootReport, Reached, read_systemd

TEXT_NAME, JSON_NAME = "boot.txt", "boot.json"

_MANAGER = "InitRDTimestampMonotonic,UserspaceTimestampMonotonic,FinishTimestampMonotonic"
_UNIT = "Id,ActiveState,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic"
#: Only these kinds of units can fail.
_KINDS = "'*.service' '*.mount' '*.automount' '*.socket' '*.swap' '*.timer' '*.path'"


@runtime_checkable
class BootTold(Protocol):
    """A guest that knows how its boot went."""

    def boot_report(self, timeout: float) -> BootReport:
        """How it went, asked for at most ``timeout`` seconds. Raises InfrastructureError when the guest is lost."""


def report_boot(guest: Guest, timeout: float) -> BootReport | None:
    """``boot_report`` of a guest that has one, such as those of LibvirtGuests; None of any other."""
    return guest.boot_report(timeout) if isinstance(guest, BootTold) else None


def systemd_command(patience: float) -> str:
    """The shell command whose output ``distgate.readiness.read_systemd`` reads.

    systemd itself is waited for until its boot is over, for at most ``patience`` seconds; nothing polls. Of the
    units properties are asked for: `systemd-analyze blame` knows the same and needs twenty times as long.
    """
    return (
        f"state=$(timeout {patience:.0f} systemctl is-system-running --wait); "
        'echo "${state:-$(systemctl is-system-running)}"; '
        f"systemctl show -p {_MANAGER}; echo; systemctl show {_KINDS} -p {_UNIT}"
    )


def collect(
    ask: Callable[[str, float], CommandResult],
    reached: Sequence[Reached],
    powered_on: float,
    accelerator: str,
    timeout: float,
) -> BootReport:
    """What there is to say of a boot, for at most ``timeout`` seconds.

    ``ask`` runs a command in the guest; ``powered_on`` is its start by ``time.monotonic()``, and ``reached`` what was
    seen since. Raises InfrastructureError when the guest cannot be reached or does not know systemctl.
    """
    # A part of the time is for the answer: a guest that is still starting is reported as that, not lost.
    answer = ask(systemd_command(max(1.0, timeout * 0.7)), timeout)
    facts = read_systemd(answer.stdout)
    if not facts.state:
        raise InfrastructureError("the guest does not tell its systemd state", evidence=answer.stderr)
    up = [Reached(SYSTEMD, round(time.monotonic() - powered_on, 3), facts.state)] if facts.state in UP else []
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
