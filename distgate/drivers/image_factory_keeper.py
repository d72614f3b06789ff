"""The process between us and imagefactory: whatever imagefactory started ends with it, and with us.

imagefactory's installer runs in libvirt's daemon, not below imagefactory, and only imagefactory itself can take it
down: it does so on SIGTERM. So the end comes in two steps, also when the worker was killed by kill -9: a request, and
after some seconds SIGKILL for every descendant, in whatever session or process group it hides.

Run as ``python -m distgate.drivers.image_factory_keeper PARENT GRACE LOG WORD...`` by setpriv --pdeathsig TERM.
Its exit status is imagefactory's, or 128 and the signal's number.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from distgate.process import kill_group, spawn

_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL = 0.1


class Keeper:
    """One command and its descendants; ``asked`` is when the end was asked for (monotonic seconds)."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.asked: float | None = None

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        self.asked = self.asked or time.monotonic()

    def keep(self, argv: list[str], log: Path) -> int:
        """Run ``argv`` to its end, or until some seconds after somebody asked; return its status."""
        child = spawn(["setpriv", "--pdeathsig", "KILL", "--", *argv], log_to=log, env=dict(os.environ))
        told = False
        try:
            while child.poll() is None:
                if self.asked is not None and not told:
                    kill_group(child.pid, signal.SIGTERM)
                    told = True
                if self.asked is not None and time.monotonic() > self.asked + self.grace:
                    kill_group(child.pid)
                time.sleep(_INTERVAL)
        finally:
            _end_descendants()
        return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main(parent: str, grace: str, log: str, *argv: str) -> int:
    """Keep the command ``argv``; 143 when the parent has gone before we could notice."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of our descendants")
    keeper = Keeper(float(grace))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, keeper.ask)
    if os.getppid() != int(parent):
        return 128 + signal.SIGTERM
    return keeper.keep(list(argv), Path(log))


def _end_descendants() -> None:
    while found := _descendants():
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(_INTERVAL / 10)


def _descendants() -> list[int]:
    """Living processes below us: orphans among them are our children, because we are their reaper."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                if fields[0] != "Z" or fields[1] == str(os.getpid()):
                    parents[int(entry)] = int(fields[1])
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found - {os.getpid()})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4], *sys.argv[4:]))
