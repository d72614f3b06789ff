"""The fast way to mount an image's root: a loop device over its export. For root, on a kernel with loop devices."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.mounts.export import partition
from distgate.mounts.root import InstallRoot, cleanup_after
from distgate.process import run
from distgate.steps import Steps

PROGRAMS = ("qemu-storage-daemon", "mount", "umount")


def refusal() -> str:
    """Why this host cannot, or nothing. An ordinary user cannot, and most containers have no loop devices."""
    if os.geteuid() != 0:
        return "loop devices take root"
    missing = [device for device in ("/dev/fuse", "/dev/loop-control") if not os.access(device, os.R_OK | os.W_OK)]
    return f"{missing[0]} is not there or closed" if missing else ""


@contextmanager
def mounted(image: Path, offset: int, workspace: Path, steps: Steps) -> Iterator[InstallRoot]:
    """The file system that starts ``offset`` bytes into a qcow2 image, below a new directory of ``workspace``.

    Raises InfrastructureError.
    """
    root = workspace / "root"
    root.mkdir()
    with partition(image, offset, workspace, steps) as raw:
        with steps.step("mount"):
            run(["mount", "-o", "loop,nodev", raw, root], timeout=60, error=InfrastructureError)

        def unmount() -> None:
            with steps.step("unmount"):
                run(["umount", root], timeout=300, error=InfrastructureError)

        with cleanup_after(unmount):
            yield InstallRoot(root)
