"""A guest's restart, seen from outside: another boot of it has to answer a command over ssh."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from distgate.errors import InfrastructureError
from distgate.guests import ssh
from distgate.guests.boot import BANNER, COMMAND, BootMilestone
from distgate.waiting import Deadline, wait_for

#: The kernel makes up another one at every boot.
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
#: Seconds (under KVM) that one connection waits for sshd's greeting. User-mode networking takes connections while
#: the guest is down and delivers them later: each that is given up costs the guest a process while it boots.
_GREETING = 1.0
#: Seconds (under KVM) for a command, and between two looks at a guest that has not gone down yet.
_COMMAND, _LOOK = 30.0, 0.2


def reboot(
    address: ssh.SshAddress,
    timeout: float,
    scale: float,
    check_alive: Callable[[], None],
    evidence: Callable[[], str],
) -> tuple[float, tuple[BootMilestone, ...]]:
    """Restart a guest: the moment of the request by ``time.monotonic()``, and what was reached since.

    ``timeout`` is in seconds under KVM, as all waits here, and stretched by ``scale``. ``check_alive`` raises when
    the emulator has ended. Raises TimedOut with ``evidence`` when no other boot answers, InfrastructureError when the
    guest cannot be asked.
    """
    deadline = Deadline(timeout * scale)
    before = _boot_id(address, min(_COMMAND * scale, deadline.remaining()))
    requested_at = time.monotonic()
    _ask(address, min(_COMMAND * scale, deadline.remaining()))
    reached: list[BootMilestone] = []

    def another_boot() -> str | None:
        check_alive()
        greeting = ssh.banner(address, _GREETING * scale)
        if not greeting:
            return None
        seconds = time.monotonic() - requested_at
        with suppress(InfrastructureError):  # it was on its way down
            answer = _boot_id(address, max(1.0, min(_COMMAND * scale, deadline.remaining())))
            if answer != before:
                reached.append(BootMilestone(BANNER, round(seconds, 3), greeting))
                return answer
        return None

    boot = wait_for("another boot of the guest", another_boot, deadline, evidence=evidence, interval=_LOOK * scale)
    reached.append(BootMilestone(COMMAND, round(time.monotonic() - requested_at, 3), f"boot {boot}"))
    return requested_at, tuple(reached)


def _boot_id(address: ssh.SshAddress, timeout: float) -> str:
    answer = ssh.run(address, _BOOT_ID, timeout)
    if answer.returncode or not answer.stdout.strip():
        raise InfrastructureError("the guest does not tell which boot it is", evidence=answer.stderr)
    return answer.stdout.strip()


def _ask(address: ssh.SshAddress, timeout: float) -> None:
    try:
        answer = ssh.run(address, "systemctl reboot", timeout)
    except InfrastructureError:
        return  # it can be gone before it has answered; whether it comes back is looked at next
    if answer.returncode:
        raise InfrastructureError("the guest refuses to restart", evidence=answer.stderr)
