"""The process between us and imagefactory: whatever imagefactory started ends with it, and with us.

Two things outlive a killed imagefactory: processes that hide in sessions of their own, and the installer's virtual
machine, which belongs to libvirt's daemon. imagefactory 1.1.16 means to take that down on SIGTERM and stumbles (its
builders have no ``builder_thread``), so it is done here, by the name that imagefactory derives from the image's UUID.

Run as ``python -m distgate.kickstart.imagefactory_monitor PARENT GRACE LOG STORAGE URI WORD...``
by setpriv --pdeathsig TERM: so also the worker's kill -9 ends it.
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


class Monitor:
    """One command and its descendants; ``asked`` is when the end was asked for (monotonic seconds)."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self.asked: float | None = None

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """A signal handler."""
        self.asked = self.asked or time.monotonic()

    def run(self, argv: list[str], log: Path) -> int:
        """Run ``argv`` to its end, or until some seconds after a signal asked for it; return its status."""
        child = spawn(["setpriv", "--pdeathsig", "KILL", "--", *argv], log_to=log, env=dict(os.environ))
        terminated = False
        try:
            while child.poll() is None:
                if self.asked is not None and not terminated:
                    kill_group(child.pid, signal.SIGTERM)
                    terminated = True
                if self.asked is not None and time.monotonic() > self.asked + self.grace:
                    kill_group(child.pid)
                time.sleep(_INTERVAL)
        finally:
            _end_descendants()
        return child.returncode if child.returncode >= 0 else 128 - child.returncode


def main(parent: str, grace: str, log: str, storage: str, uri: str, *argv: str) -> int:
    """Keep the command ``argv``; 143 when the parent has gone before we could notice.

    Unless it succeeds, the virtual machines of the images in ``storage`` are destroyed in libvirt at ``uri``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the reaper of our descendants")
    monitor = Monitor(float(grace))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, monitor.ask)
    if os.getppid() != int(parent):
        return 128 + signal.SIGTERM
    status = monitor.run(list(argv), Path(log))
    if uri and (status != 0 or monitor.asked is not None):
        for name in take_down_installers(Path(storage), uri):
            print(f"destroyed the virtual machine {name}", flush=True)
    return status


def take_down_installers(storage: Path, uri: str) -> list[str]:
    """Destroy and forget the virtual machines in which images of ``storage`` are installed; return their names."""
    from distgate.guests.libvirt_module import libvirt  # only a failed build pays for loading it

    names = [f"factory-build-{body.stem}" for body in storage.glob("*.body")]
    destroyed = []
    try:
        connection = libvirt.open(uri)
    except libvirt.libvirtError as error:
        print(f"cannot look for the installer's virtual machine: {error}", flush=True)
        return []
    for domain in connection.listAllDomains():
        if domain.name() in names:
            with contextlib.suppress(libvirt.libvirtError):  # gone meanwhile, or not persistent
                destroyed.append(domain.name())
                domain.destroy()
                domain.undefine()
    connection.close()
    return destroyed


def _end_descendants() -> None:
    while pids := _descendants():
        for pid in pids:
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
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family - {os.getpid()})


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6], *sys.argv[6:]))
