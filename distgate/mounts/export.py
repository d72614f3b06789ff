"""A file system inside a qcow2 image, as a plain file: exported over FUSE, with neither nbd nor an appliance."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import tail_of
from distgate.mounts.root import cleanup_after
from distgate.process import spawn
from distgate.steps import Steps
from distgate.waiting import wait_for

START_SECONDS = 60.0
#: For what was written to reach the image: a slow disk under a large transaction.
END_SECONDS = 300.0
_CLONE_NEWNS = 0x00020000  # of <sched.h>; os.unshare is Python 3.12's


@contextmanager
def partition(image: Path, offset: int, workspace: Path, steps: Steps) -> Iterator[Path]:
    """A file whose content is what begins ``offset`` bytes into a qcow2 ``image``; writing to it changes the image.
    Raises InfrastructureError when the image cannot be opened, or when not all of it could be written.
    """
    raw, pidfile, log = workspace / "partition", workspace / "export.pid", workspace / "export.log"
    with steps.step("open image"):
        raw.touch()
        daemon = spawn(_command(image, offset, raw, pidfile), log_to=log)
        wait_for("the image's export", lambda: _exported(daemon, pidfile, log), START_SECONDS, interval=0.01)
    _leave_its_mounts()

    def close() -> None:
        with steps.step("close image"):
            end(daemon, "the export of the image", log)

    with cleanup_after(close):
        yield raw
    if "No space left on device" in tail_of(log):
        raise InfrastructureError("the host's disk was full while the image was written", evidence=tail_of(log))


def _leave_its_mounts() -> None:
    """Go on in a mount namespace of our own, which the exporting daemon is not in.

    When all of us are killed at once, the last process of a mount namespace unmounts what is in it. Were that the
    daemon, it would wait for ever, unkillable, for data that only it could write.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        number = ctypes.get_errno()
        raise InfrastructureError(f"no mount namespace of our own: {os.strerror(number)}")


def end(daemon: subprocess.Popen[bytes], what: str, log: Path) -> None:
    """Ask a daemon to write what it holds and to end. Raises InfrastructureError when it does not."""
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    wait_for_end(daemon, what, log)


def wait_for_end(daemon: subprocess.Popen[bytes], what: str, log: Path) -> None:
    """Wait until a daemon has written everything and ended. Raises InfrastructureError with its output."""
    try:
        status = daemon.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        raise InfrastructureError(f"{what} did not end within {END_SECONDS:g} s", evidence=tail_of(log)) from None
    if status not in (0, -signal.SIGTERM):
        raise InfrastructureError(f"{what} ended with status {status}", evidence=tail_of(log))


def _command(image: Path, offset: int, raw: Path, pidfile: Path) -> list[str | Path]:
    # No flushes: a compose that ends halfway is thrown away, one that ends well is closed properly.
    return [
        "qemu-storage-daemon",
        *("--blockdev", f"driver=file,filename={image},node-name=file,cache.no-flush=on"),
        *("--blockdev", "driver=qcow2,file=file,node-name=image,cache.no-flush=on"),
        *("--blockdev", f"driver=raw,file=image,offset={offset},node-name=partition"),
        *("--export", f"type=fuse,id=export,node-name=partition,mountpoint={raw},writable=on"),
        *("--pidfile", pidfile),
    ]


def _exported(daemon: subprocess.Popen[bytes], pidfile: Path, log: Path) -> bool:
    if daemon.poll() is not None:
        raise InfrastructureError("the image cannot be opened", hint="is FUSE there?", evidence=tail_of(log))
    return pidfile.exists()
