"""The portable way: a libguestfs appliance mounts the root and serves it over FUSE. Any file system, half a minute.

What cannot pass through its protocol are extended attributes with a zero byte, as file capabilities and SELinux
labels have: those are set by the appliance itself at the end, from a list that lies in the root (LATE_ATTRIBUTES).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import tail_of
from distgate.guests.accelerator import accelerator
from distgate.mounts.export import END_SECONDS, partition, wait_for_end
from distgate.mounts.root import LATE_ATTRIBUTES, InstallRoot, cleanup_after
from distgate.mounts.rootless import user_namespace_refusal
from distgate.process import run, spawn
from distgate.steps import Steps
from distgate.waiting import wait_for

PROGRAMS = ("guestfish", "supermin", "setcap", "qemu-storage-daemon", "umount")
#: Seconds in which an appliance is built (once per cache) and booted under KVM.
START_SECONDS = 60.0
_MODULES = Path("/lib/modules")


def refusal(kernel: Path | None = None) -> str:
    """Why this host cannot, or nothing. ``kernel`` as for ``mounted``."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse is not there or closed to this user"
    if not _MODULES.is_dir():
        return f"supermin wants the directory {_MODULES} to exist"
    if kernel and not (kernel / "vmlinuz").exists():
        return f"there is no vmlinuz in {kernel}"
    if not kernel and not any(Path("/boot").glob("vmlinuz-*")) and not any(_MODULES.glob("*/vmlinuz")):
        return "there is no kernel for the appliance in /boot (DISTGATE_APPLIANCE_KERNEL names another)"
    return user_namespace_refusal()


@contextmanager
def mounted(
    image: Path, offset: int, workspace: Path, steps: Steps, kernel: Path | None = None, cache: Path | None = None
) -> Iterator[InstallRoot]:
    """The file system that starts ``offset`` bytes into a qcow2 image, below a new directory of ``workspace``.

    ``kernel`` is a directory of modules with a vmlinuz in it (None: this host's), ``cache`` keeps the appliance.
    Raises InfrastructureError with the appliance's output.
    """
    root, log, commands = workspace / "root", workspace / "guestfs.log", workspace / "guestfish"
    root.mkdir()
    os.mkfifo(commands)
    with partition(image, offset, workspace, steps) as raw:
        with steps.step("mount"):
            fish = spawn(["guestfish", "-f", commands], log_to=log, env=_environment(workspace, kernel, cache))
            talk = _open(commands, fish, log)
            _send(talk, f"add {raw} format:raw", "run", "mount /dev/sda /")
            _send(talk, f"mount-local {root} options:allow_other,default_permissions", "mount-local-run")
            limit = START_SECONDS * accelerator().scale
            wait_for("the appliance to mount the root", lambda: _is_mounted(root, fish, log), limit, interval=0.05)

        def unmount() -> None:
            late = (root / LATE_ATTRIBUTES).exists()
            with steps.step("unmount"):
                run(["umount", root], timeout=END_SECONDS, error=InfrastructureError)
                if late:
                    _send(talk, f'debug sh "cd /sysroot && setfattr -h --restore={LATE_ATTRIBUTES}"')
                    _send(talk, f"rm /{LATE_ATTRIBUTES}")
                _send(talk, "umount-all", "shutdown")
                os.close(talk)
                wait_for_end(fish, "the appliance", log)

        with cleanup_after(unmount):
            yield InstallRoot(root, binary_attributes=False)


def _environment(workspace: Path, kernel: Path | None, cache: Path | None) -> dict[str, str]:
    scratch = workspace / "guestfs"
    scratch.mkdir()
    keep = cache or scratch
    keep.mkdir(parents=True, exist_ok=True)
    # The accelerator that merely looks usable would hang the appliance.
    variables = {"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"} if accelerator().name == "tcg" else {}
    if kernel:
        variables |= {
            "SUPERMIN_KERNEL": str(kernel / "vmlinuz"),
            "SUPERMIN_MODULES": str(kernel),
            "SUPERMIN_KERNEL_VERSION": kernel.name,
        }
    variables |= {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_CACHEDIR": str(keep)}
    return variables | {"TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}


def _open(commands: Path, fish: subprocess.Popen[bytes], log: Path) -> int:
    """The writing end of guestfish's script; it reads line by line, so that lines can follow while it works."""

    def opened() -> int | None:
        _check(fish, log)
        try:
            return os.open(commands, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # it is not read yet
            return None

    return wait_for("guestfish to start", opened, 30, interval=0.01)


def _send(talk: int, *lines: str) -> None:
    try:
        os.write(talk, "".join(f"{line}\n" for line in lines).encode())
    except BrokenPipeError:
        raise InfrastructureError("the appliance has ended early") from None


def _is_mounted(root: Path, fish: subprocess.Popen[bytes], log: Path) -> bool:
    _check(fish, log)
    return os.path.ismount(root)


def _check(fish: subprocess.Popen[bytes], log: Path) -> None:
    if fish.poll() is not None:
        raise InfrastructureError(
            "the libguestfs appliance cannot mount the root file system",
            hint="libguestfs-test-tool checks the appliance",
            evidence=tail_of(log),
        )
