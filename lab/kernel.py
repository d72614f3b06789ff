"""The lab guest's kernel: Debian's cloud kernel with the modules a virtual machine needs and a tiny initramfs."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.process import run
from lab.debian_root import UNCONFIGURED

PACKAGE = "kernel-core"

#: Modules by file name; what they depend on comes along. 92 MB become 5 MB.
_MODULES = (
    "virtio*", "net_failover", "overlay", "loop", "fuse", "squashfs", "isofs", "sr_mod", "9p*", "vfat", "nls_*",
    "*vsock*", "sd_mod", "crc*", "rng-core", "autofs4", "dm-mod", "veth", "bridge", "nf_tables", "tun",
)  # fmt: skip

#: Loaded by the initramfs, in this order: nothing in there resolves dependencies.
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
mount -t ext4 -o rw,noatime $root /newroot || {{ echo "initramfs: no root file system on $root"; exec sh; }}
mount -o move /dev /newroot/dev
umount /proc
exec switch_root /newroot $init
"""
_APPLETS = ("sh", "mount", "umount", "insmod", "switch_root", "sleep", "cat")


@dataclass(frozen=True)
class Kernel:
    """A kernel placed in a root: ``release`` is what uname -r prints, ``files`` are its paths there."""

    release: str
    version: str
    rpm_release: str
    files: tuple[str, ...]

    @property
    def directory(self) -> str:
        return f"/usr/lib/modules/{self.release}"


def add_kernel(root: Path, scratch: Path) -> Kernel:
    """Put vmlinuz, trimmed modules and initramfs.img into ``root/usr/lib/modules/RELEASE``.

    Takes the .deb files that lab.debian_root downloaded. Raises InfrastructureError when they are not there.
    """
    image = _only(root / UNCONFIGURED, "linux-image-*.deb")
    for deb in (image, _only(root / UNCONFIGURED, "busybox-static_*.deb")):
        # dpkg of the root: the host need not be a Debian.
        run(["chroot", root, "dpkg-deb", "-x", f"/{UNCONFIGURED}/{deb.name}", f"/{UNCONFIGURED}/x"], timeout=120)
    unpacked = root / UNCONFIGURED / "x"
    release = _only(unpacked / "lib/modules", "*").name
    target = root / f"usr/lib/modules/{release}"
    _trim(root, unpacked / "lib/modules" / release, target)
    shutil.copy(unpacked / f"boot/vmlinuz-{release}", target / "vmlinuz")
    _make_initramfs(unpacked / "bin/busybox", target, scratch)
    files = tuple(f"/{path.relative_to(root)}" for path in (target, *sorted(target.rglob("*"))))
    version, rpm_release = _versions(image.name)
    return Kernel(release, version, rpm_release, files)


def _versions(deb: str) -> tuple[str, str]:
    match = re.match(r"linux-image-[^_]+_([^_-]+)-([^_]+)_", deb)
    if not match:
        raise InfrastructureError(f"cannot read the kernel's version from {deb}")
    return match[1], match[2].replace("-", ".").replace("+", ".")


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise InfrastructureError(f"expected one {pattern} in {directory}, found {len(found)}")
    return found[0]


def _trim(root: Path, source: Path, target: Path) -> None:
    release = source.name
    full = target.with_name(f"{release}.full")
    shutil.copytree(source, full, symlinks=True)
    # Twice: the first run tells the dependencies among all modules, the second describes those that stay.
    run(["chroot", root, "depmod", f"{release}.full"], timeout=120)
    wanted = set(_closure(full / "modules.dep"))
    for name in wanted:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(full / name, target / name)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(full / name, target / name)
    shutil.rmtree(full)
    run(["chroot", root, "depmod", release], timeout=120)


def _closure(modules_dep: Path) -> Iterator[str]:
    for line in modules_dep.read_text().splitlines():
        module, _, needs = line.partition(":")
        stem = Path(module).name.removesuffix(".ko")
        if any(fnmatch(stem, pattern) for pattern in _MODULES):
            yield module
            yield from needs.split()


def _make_initramfs(busybox: Path, target: Path, scratch: Path) -> None:
    tree = scratch / "initramfs"
    for name in ("bin", "proc", "dev", "sys", "newroot", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    for name in _APPLETS:
        (tree / "bin" / name).symlink_to("busybox")
    for name in _EARLY:
        shutil.copy(_only_module(target, name), tree / "modules" / f"{name}.ko")
    (tree / "init").write_text(_INIT.format(modules=" ".join(_EARLY)))
    (tree / "init").chmod(0o755)
    # Not compressed: an emulated processor takes longer to unpack it than the firmware to read it.
    (target / "initramfs.img").write_bytes(cpio_archive(tree))


def _only_module(target: Path, name: str) -> Path:
    found = [path for path in target.rglob("*.ko") if path.stem.replace("-", "_") == name]
    if not found:
        raise InfrastructureError(f"the kernel has no module {name}", hint="lab/kernel.py lists what the guest loads")
    return found[0]


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
