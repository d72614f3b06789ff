"""A companion process that kills the guests of a worker that vanished, even by kill -9.

libvirt's embedded driver cannot tie a guest to its process (AUTODESTROY is refused), so this one does. It is started
as a plain script with nothing but the standard library, so that it costs a few milliseconds and can start anywhere.

A guest is known by its command line: qemu names the private directory of its embedded driver there, and that name is
made up at random for one worker. So nothing has to be registered in time, and no other process can be hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

#: Consecutive looks without a guest before we believe that none is left: one could just be starting.
_QUIET_LOOKS = 4
_INTERVAL = 0.25
#: Seconds after which we give up on processes that do not die.
_LIMIT = 30.0


def guests_of(root: Path) -> list[int]:
    """The process IDs of the running emulators whose command line names the directory ``root``."""
    mark = f"{root}/".encode()
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                command_line = (entry / "cmdline").read_bytes()
                if b"qemu" in command_line.split(b"\0", 1)[0] and mark in command_line:
                    pids.append(int(entry.name))
    return pids


def kill_guests(root: Path) -> list[int]:
    """Kill every guest of ``root`` until no more appear, remove the directory, and return the killed process IDs."""
    killed: list[int] = []
    quiet, end = 0, time.monotonic() + _LIMIT
    while quiet < _QUIET_LOOKS and time.monotonic() < end:
        pids = guests_of(root)
        quiet = 0 if pids else quiet + 1
        for pid in pids:
            _kill(pid, root)
        killed += [pid for pid in pids if pid not in killed]
        time.sleep(_INTERVAL)
    shutil.rmtree(root, ignore_errors=True)
    return killed


def start_time(pid: int) -> str:
    """What tells this process from a later one with the same ID; empty when there is none, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _kill(pid: int, root: Path) -> None:
    # The handle holds on to the process that we looked at, so a reused ID is never hit.
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if pid in guests_of(root):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _wait_for_end_of(pid: int, started: str) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        if start_time(pid) == started:
            select.select([handle], [], [])  # readable when the process ends


def main(root: str, pid: str, started: str, record: str) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # who stops the worker often signals everything near it
    _wait_for_end_of(int(pid), started)
    kill_guests(Path(root))
    Path(record).unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:5])
