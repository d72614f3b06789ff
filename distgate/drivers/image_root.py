"""A root file system to install into: an image or a directory, with the file systems that scriptlets expect.

For process 1 of a process namespace only: it ends and collects every other process of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.process import run
from distgate.waiting import wait_for

#: Where the root sees the shared directory; nothing of it stays in an image.
SHARED = "/run/distgate"
_NODES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass(frozen=True)
class Place:
    """A root directory, and the process that exports the image below it."""

    root: Path
    exporter: int | None = None


@contextmanager
def mounted_image(image: Path, offset: int, workspace: Path) -> Iterator[Place]:
    """The file system that starts ``offset`` bytes into a qcow2 image, below a new directory of ``workspace``.

    The image is exported raw over FUSE and loop mounted: no nbd module, no appliance. Raises InfrastructureError.
    """
    raw, root, pidfile = workspace / "disk", workspace / "root", workspace / "export.pid"
    raw.touch()
    root.mkdir()
    # No flushes: a compose that ends halfway is thrown away, one that ends well is closed properly.
    exported = ["--blockdev", f"driver=file,filename={image},node-name=file,cache.no-flush=on"]
    exported += ["--blockdev", "driver=qcow2,file=file,node-name=image,cache.no-flush=on"]
    exported += ["--export", f"type=fuse,id=export,node-name=image,mountpoint={raw},writable=on"]
    run(["qemu-storage-daemon", *exported, "--pidfile", pidfile, "--daemonize"], timeout=60, hint="is FUSE there?")
    daemon = int(pidfile.read_text())
    try:
        run(["mount", "-o", f"loop,nodev,offset={offset}", raw, root], timeout=60, error=InfrastructureError)
        try:
            yield Place(root, daemon)
        finally:
            run(["umount", root], timeout=300, error=InfrastructureError)
    finally:
        _close_export(daemon)


def _close_export(daemon: int) -> None:
    os.kill(daemon, signal.SIGTERM)
    with suppress(ChildProcessError):  # collected already: then it had died earlier
        os.waitpid(daemon, 0)  # it writes the image's last tables; as process 1 we are its parent


@contextmanager
def system_directories(place: Place, shared: Path) -> Iterator[None]:
    """/proc, /sys, /dev and /run as an installer offers them to scriptlets, whose leftover processes end with them.

    ``shared`` is a directory of this host that the root sees as SHARED.
    """
    mounted: list[Path] = []

    def mount(target: str, *words: str | Path) -> None:
        directory = place.root / target
        directory.mkdir(parents=True, exist_ok=True)
        run(["mount", *words, directory], timeout=60, error=InfrastructureError)
        mounted.append(directory)

    try:
        mount("proc", "-t", "proc", "proc")
        mount("sys", "-t", "sysfs", "-o", "ro", "sysfs")
        mount("run", "-t", "tmpfs", "-o", "mode=755", "tmpfs")
        mount(SHARED.lstrip("/"), "--bind", shared)
        mount("dev", "-t", "tmpfs", "-o", "mode=755", "tmpfs")
        _fill_dev(place.root / "dev")
        yield
    finally:
        _end_the_others(place.exporter)
        for directory in reversed(mounted):
            run(["umount", directory], timeout=60, error=InfrastructureError)


def _fill_dev(dev: Path) -> None:
    for name in _NODES:
        host = os.stat(f"/dev/{name}")
        os.mknod(dev / name, host.st_mode, host.st_rdev)
        (dev / name).chmod(0o666)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")
    (dev / "fd").symlink_to("/proc/self/fd")
    (dev / "shm").mkdir(mode=0o1777)


def _end_the_others(exporter: int | None) -> None:
    """Kill what scriptlets left running: it would keep the root file system busy."""
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if pid not in (os.getpid(), exporter):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    wait_for("the scriptlets' processes to end", lambda: _only_left(exporter), 10, interval=0.02)


def _only_left(exporter: int | None) -> bool:
    """Collect ended orphans; true when no other process than the exporter is left in this namespace."""
    with suppress(ChildProcessError):
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            pass
    return {int(entry) for entry in os.listdir("/proc") if entry.isdigit()} <= {os.getpid(), exporter}
