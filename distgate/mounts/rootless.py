"""The way for an ordinary user: the image's ext4 is read and written by fuse2fs, inside a user namespace.

Its users 1 to 65535 are a range that /etc/subuid gives to the caller, so that owners in the image come out right.
Root needs no such namespace and gains a way that does without loop devices, as in a container.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.errors import DistgateError, InfrastructureError
from distgate.files import tail_of
from distgate.mounts.export import START_SECONDS, partition, wait_for_end
from distgate.mounts.root import InstallRoot, cleanup_after
from distgate.process import on_path, run, spawn
from distgate.steps import Steps
from distgate.waiting import wait_for

PROGRAMS = ("qemu-storage-daemon", "fuse2fs", "umount")
#: Without it nothing can be written, not even RPM's database opened, once a tenth of the image is all that is free.
_ENVIRONMENT = {"FUSE2FS_ALLOC_ALL_BLOCKS": "1"}


def refusal() -> str:
    """Why this host cannot, or nothing."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there or closed to this user"
    return user_namespace_refusal()


def user_namespace_refusal() -> str:
    """Why the caller cannot have a user namespace with a range of users, or nothing; root needs none."""
    if os.geteuid() == 0:
        return ""
    if not on_path("newuidmap"):
        return "newuidmap is not installed (Debian: uidmap, Fedora: shadow-utils)"
    try:
        # Users beyond the first range would be lost, so a file with a later one must exist in the namespace too.
        id_map = run([*user_namespace(), "cat", "/proc/self/uid_map"], timeout=20)
    except DistgateError as error:
        said_last = (error.evidence.strip().splitlines() or [error.message])[-1]
        return f"no user namespace with a range from /etc/subuid: {said_last}"
    mapped = sum(int(line.split()[2]) for line in id_map.output.splitlines())
    return "" if mapped >= 65535 else f"/etc/subuid gives this user {mapped - 1} users, an image needs 65535"


def user_namespace() -> list[str]:
    """The arguments before a command that give an ordinary user root over a range of users of its own."""
    return [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--map-auto"]


@contextmanager
def mounted(image: Path, offset: int, workspace: Path, steps: Steps) -> Iterator[InstallRoot]:
    """The ext4 file system that starts ``offset`` bytes into a qcow2 image, below a new directory of ``workspace``.

    Raises InfrastructureError, also for another file system than ext2, ext3 and ext4.
    """
    root, log = workspace / "root", workspace / "fuse2fs.log"
    root.mkdir()
    with partition(image, offset, workspace, steps) as raw:
        with steps.step("mount"):
            # The kernel checks permissions (default_permissions), the file system none of its own (fakeroot).
            options = "rw,fakeroot,allow_other,default_permissions"
            daemon = spawn(["fuse2fs", raw, root, "-f", "-o", options], log_to=log, env=_ENVIRONMENT)
            wait_for("the root to be mounted", lambda: _is_mounted(root, daemon, log), START_SECONDS, interval=0.01)

        def unmount() -> None:
            with steps.step("unmount"):
                run(["umount", root], timeout=300, error=InfrastructureError)
                wait_for_end(daemon, "fuse2fs", log)

        with cleanup_after(unmount):
            yield InstallRoot(root)


def _is_mounted(root: Path, daemon: subprocess.Popen[bytes], log: Path) -> bool:
    if daemon.poll() is not None:
        raise InfrastructureError(
            "the root file system cannot be mounted by fuse2fs",
            hint="is it ext4? DISTGATE_COMPOSE_DRIVER=guestfs mounts every file system of Linux",
            evidence=tail_of(log),
        )
    return os.path.ismount(root)
