"""The lab guest's kernel: Debian's cloud kernel with the modules a virtual machine needs, and its initramfs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import remove_tree
from distgate.process import run
from lab.distribution import initramfs
from lab.distribution.debian_root import UNCONFIGURED

PACKAGE = "kernel-core"
#: Holds nothing but an initramfs that begins an OSTree deployment; a tree puts it in the other one's place.
OSTREE_PACKAGE = "kernel-ostree"

#: Modules by file name; what they depend on comes along. 92 MB become 5 MB.
_MODULES = (
    "virtio*", "net_failover", "overlay", "loop", "fuse", "squashfs", "isofs", "sr_mod", "9p*", "vfat", "nls_*",
    "*vsock*", "sd_mod", "crc*", "rng-core", "autofs4", "dm-mod", "veth", "bridge", "nf_tables", "tun",
)  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """A kernel placed in a root: ``release`` is what uname -r prints, ``files`` are its paths there by RPM."""

    release: str
    version: str
    rpm_release: str
    files: Mapping[str, tuple[str, ...]]

    @property
    def directory(self) -> str:
        return f"/usr/lib/modules/{self.release}"


def add_kernel(root: Path, scratch: Path) -> Kernel:
    """Put vmlinuz, trimmed modules, initramfs.img and initramfs-ostree.img into ``root/usr/lib/modules/RELEASE``.

    Takes the .deb files that lab.distribution.debian_root downloaded, and what ostree-boot has put into the root.
        Raises     InfrastructureError when they are not there.
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
    busybox = unpacked / "bin/busybox"
    initramfs.make(busybox, target, target / "initramfs.img", scratch / "initramfs")
    files = {PACKAGE: tuple(f"/{path.relative_to(root)}" for path in (target, *sorted(target.rglob("*"))))}
    for_ostree = target / "initramfs-ostree.img"
    initramfs.make(busybox, target, for_ostree, scratch / "initramfs-ostree", ostree_root=root)
    files[OSTREE_PACKAGE] = (f"/{for_ostree.relative_to(root)}",)
    return Kernel(release, *_versions(image.name), files)


def _versions(deb: str) -> tuple[str, str]:
    match = re.match(r"linux-image-[^_]+_([^_-]+)-([^_]+)_", deb)
    if not match:
        raise InfrastructureError(f"cannot read the kernel's version from {deb}")
    return match[1], match[2].replace("-", ".").replace("+", ".")


def _only(directory: Path, pattern: str) -> Path:
    matches = sorted(directory.glob(pattern))
    if len(matches) != 1:
        raise InfrastructureError(f"expected one {pattern} in {directory}, found {len(matches)}")
    return matches[0]


def _trim(root: Path, source: Path, target: Path) -> None:
    release = source.name
    full = target.with_name(f"{release}.full")
    shutil.copytree(source, full, symlinks=True)
    # Twice: the first run lists the dependencies among all modules, the second describes those that stay.
    run(["chroot", root, "depmod", f"{release}.full"], timeout=120)
    modules = set(_closure(full / "modules.dep"))
    for name in modules:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(full / name, target / name)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(full / name, target / name)
    remove_tree(full)
    run(["chroot", root, "depmod", release], timeout=120)


def _closure(modules_dep: Path) -> Iterator[str]:
    for line in modules_dep.read_text().splitlines():
        module, _, needs = line.partition(":")
        stem = Path(module).name.removesuffix(".ko")
        if any(fnmatch(stem, pattern) for pattern in _MODULES):
            yield module
            yield from needs.split()
