"""The kernel's process table: who is who, by pid and start time, and who belongs to a lab."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

#: In the environment of every process of a lab, with the lab's state directory as value; children inherit it.
MARKER = "DISTGATE_LAB"


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same pid: ``started`` is in ticks since boot."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return identify(self.pid) == self

    def signal(self, number: int) -> bool:
        """Send a signal to this very process; False when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The handle pins the process, so the pid cannot change hands between this look and the signal.
            if not self.alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def identify(pid: int) -> ProcessId | None:
    """The running process with this pid, or None (also for a zombie)."""
    fields = _stat(pid)
    if not fields or fields[0] in "ZX":
        return None
    return ProcessId(pid, int(fields[19]))


def ancestry() -> set[int]:
    """Our own pid and those of our parents: never to be ended by us."""
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        fields = _stat(pid)
        pid = int(fields[1]) if fields else 0
    return pids


def members(state: Path) -> list[ProcessId]:
    """Every running process of the lab in ``state``, but ourselves and our parents.

    A process belongs to it when its environment carries the marker, or when it is a qemu that was given a file
    below ``state``: libvirt starts qemu with an environment of its own.
    """
    spared = ancestry()
    processes = [identify(pid) for pid in _pids() if pid not in spared and _belongs(pid, state)]
    return [process for process in processes if process]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    # The command name in brackets may hold blanks and brackets of its own: fields are counted from the last one.
    text = _read(pid, "stat").decode("utf-8", "replace")
    return text.rpartition(")")[2].split()


def _belongs(pid: int, state: Path) -> bool:
    if f"{MARKER}={state}".encode() in _read(pid, "environ").split(b"\0"):
        return True
    argv = _read(pid, "cmdline").decode("utf-8", "replace").split("\0")
    return Path(argv[0]).name.startswith("qemu") and any(f"{state}/" in argument for argument in argv[1:])


def _read(pid: int, name: str) -> bytes:
    # Processes come and go while we look, and other people's are none of our business.
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
