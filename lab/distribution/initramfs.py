"""The guests' initramfs: busybox, the modules that lead to the disk, and for OSTree what finds the deployment."""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.process import run

#: Loaded in this order: nothing in there resolves dependencies.
_EARLY = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
    "failover", "net_failover", "virtio_net",
)  # fmt: skip

_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
for module in {modules}; do insmod /modules/$module.ko; done
root=/dev/vda init=/sbin/init
for word in $(cat /proc/cmdline); do
    case $word in root=*) root=${{word#root=}};; init=*) init=${{word#init=}};; esac
done
tries=0
while [ ! -b $root ] && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries+1)); done
mount -t ext4 -o rw,noatime $root /sysroot || {{ echo "initramfs: no root file system on $root"; exec sh; }}
{deployment}mount -o move /dev /sysroot/dev
umount /proc
exec switch_root /sysroot $init
"""
# The file asks ostree to mount /var, which otherwise a generator of systemd's would have done.
_DEPLOYMENT = """mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/ostree
: > /run/ostree/initramfs-mount-var
/usr/lib/ostree/ostree-prepare-root /sysroot || { echo "initramfs: no deployment on $root"; exec sh; }
mount -o move /run /sysroot/run
"""
_PREPARE_ROOT = "usr/lib/ostree/ostree-prepare-root"
_APPLETS = ("sh", "mount", "umount", "insmod", "switch_root", "sleep", "cat", "mkdir")


def make(busybox: Path, modules: Path, into: Path, tree: Path, ostree_root: Path | None = None) -> None:
    """Write the archive ``into``, laid out in the new directory ``tree``, with modules of the directory ``modules``.

    With ``ostree_root``, a root that has ostree-boot, it boots the deployment that the kernel argument ``ostree=``
    names. Raises InfrastructureError when a part is missing.
    """
    for name in ("bin", "proc", "dev", "sys", "run", "sysroot", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for name in _APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    for name in _EARLY:
        shutil.copy(_only_module(modules, name), tree / "modules" / f"{name}.ko")
    if ostree_root:
        for path in (_PREPARE_ROOT, *_libraries(ostree_root, _PREPARE_ROOT)):
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ostree_root / path, tree / path)
    (tree / "init").write_text(_INIT.format(modules=" ".join(_EARLY), deployment=_DEPLOYMENT if ostree_root else ""))
    (tree / "init").chmod(0o755)
    # Not compressed: an emulated processor takes longer to unpack it than the firmware to read it.
    into.write_bytes(cpio_archive(tree))


def _only_module(directory: Path, name: str) -> Path:
    modules = [path for path in directory.rglob("*.ko") if path.stem.replace("-", "_") == name]
    if not modules:
        raise InfrastructureError(
            f"the kernel has no module {name}", hint="lab/distribution/initramfs.py lists what is loaded"
        )
    return modules[0]


def _libraries(root: Path, program: str) -> list[str]:
    """The loader and the libraries of a program of ``root``, as paths in it."""
    libraries = run(["chroot", root, "ldd", f"/{program}"], timeout=60, error=InfrastructureError).output
    return [path.lstrip("/") for path in re.findall(r"(/\S+) \(0x", libraries)]


def cpio_archive(tree: Path) -> bytes:
    """A "newc" archive of ``tree``, everything owned by root and dated 1970: equal trees give equal bytes."""
    members = [
        _member(path, str(path.relative_to(tree)), number) for number, path in enumerate(sorted(tree.rglob("*")))
    ]
    return b"".join(members) + _header("TRAILER!!!", 0, 0, b"")


def _member(path: Path, name: str, inode: int) -> bytes:
    mode = os.lstat(path).st_mode
    return _header(name, inode + 1, mode, _content(path, mode))


def _content(path: Path, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(path).encode()
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def _header(name: str, inode: int, mode: int, data: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device and rdevice (major, minor), name's length, no checksum
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + "".join(f"{value:08X}" for value in fields).encode() + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
