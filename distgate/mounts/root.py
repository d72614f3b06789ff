"""A root file system to install into, with the file systems that scriptlets expect.

For process 1 of a process namespace only: it ends and collects every other process of it.

Undoing in order what was mounted or started.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import DistgateError, InfrastructureError
from distgate.process import run
from distgate.waiting import wait_for

#: Where the root sees the shared directory; nothing of it stays in an image.
SHARED = "/run/distgate"
#: A list in the root of attributes that its mount could not set, in the format of getfattr --dump.
LATE_ATTRIBUTES = ".distgate-attributes"
_NODES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass(frozen=True)
class InstallRoot:
    """A root directory. Where ``binary_attributes`` cannot be set on its files, a list in LATE_ATTRIBUTES can be."""

    root: Path
    binary_attributes: bool = True


@contextmanager
def system_directories(installroot: InstallRoot, shared: Path) -> Iterator[None]:
    """/proc, /sys, /dev and /run as an installer offers them to scriptlets, whose leftover processes end with them.

    ``shared`` is a directory of this host that the root sees as SHARED. Processes that run already, which serve the
    root, are left alone.
    """
    serving = _processes()
    mounted: list[Path] = []

    def mount(target: str, *options: str | Path) -> None:
        directory = installroot.root / target
        directory.mkdir(parents=True, exist_ok=True)
        run(["mount", *options, directory], timeout=60, error=InfrastructureError)
        mounted.append(directory)

    mount("proc", "-t", "proc", "proc")
    if _in_user_namespace():  # which may mount no sysfs without a network of its own
        mount("sys", "--rbind", "/sys")
    else:
        mount("sys", "-t", "sysfs", "-o", "ro", "sysfs")
    mount("run", "-t", "tmpfs", "-o", "mode=755", "tmpfs")
    mount(SHARED.lstrip("/"), "--bind", shared)
    mount("dev", "-t", "tmpfs", "-o", "mode=755", "tmpfs")
    _fill_dev(installroot.root / "dev")

    def undo() -> None:
        _end_the_others(serving)
        for directory in reversed(mounted):  # lazy: in a user namespace parts of /sys cannot be unmounted alone
            run(["umount", "--lazy", directory], timeout=60, error=InfrastructureError)

    with cleanup_after(undo):
        yield


def _in_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def _fill_dev(dev: Path) -> None:
    for name in _NODES:
        _add_device(dev / name)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")
    (dev / "fd").symlink_to("/proc/self/fd")
    (dev / "shm").mkdir(mode=0o1777)


def _add_device(node: Path) -> None:
    host = Path("/dev") / node.name
    try:
        os.mknod(node, host.stat().st_mode, host.stat().st_rdev)
        node.chmod(0o666)
    except PermissionError:  # in a user namespace only the host's own nodes are devices
        node.touch()
        run(["mount", "--bind", host, node], timeout=60, error=InfrastructureError)


def _end_the_others(serving: set[int]) -> None:
    """Kill what scriptlets left running: it would keep the root file system busy."""
    for pid in _processes() - serving:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("the scriptlets' processes to end", lambda: _only_left(serving), 10, interval=0.02)


def _only_left(serving: set[int]) -> bool:
    """Collect ended orphans; true when no other process than those that serve is left in this namespace."""
    for pid in _processes() - serving:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return _processes() <= serving


def _processes() -> set[int]:
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()}


@contextmanager
def cleanup_after(undo: Callable[[], None]) -> Iterator[None]:
    """Call ``undo`` afterwards; after a failure its own failure does not hide what failed first."""
    try:
        yield
    except BaseException:
        with suppress(DistgateError):
            undo()
        raise
    undo()
