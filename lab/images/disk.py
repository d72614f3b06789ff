"""A bootable disk from a directory: MBR and a FAT partition with syslinux, then ext4; no mount, no loop device."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError
from distgate.process import run

MIB = 1024 * 1024
_SECTOR = 512
_BOOT_START = 1 * MIB
#: Seconds for any of the small tools: each needs a fraction of one, and a busy machine has been seen to need sixty.
_PATIENCE = 300.0

#: Where distributions put syslinux's boot sector.
_MBR_CODE = ("/usr/lib/SYSLINUX/mbr.bin", "/usr/lib/syslinux/mbr/mbr.bin", "/usr/share/syslinux/mbr.bin")


@dataclass(frozen=True)
class DiskLayout:
    """Sizes in MiB; the root partition follows the boot partition, which starts at 1 MiB."""

    root_size: int
    boot_size: int = 64

    @property
    def root_offset(self) -> int:
        """Where the root file system starts, in bytes."""
        return _BOOT_START + self.boot_size * MIB

    @property
    def size(self) -> int:
        """The whole disk in bytes."""
        return self.root_offset + self.root_size * MIB


@dataclass(frozen=True)
class Boot:
    """What the boot loader starts: files of this host, and the kernel's arguments."""

    kernel: Path
    initramfs: Path
    arguments: str
    root_device: str = "/dev/vda2"


def make_disk(root: Path, boot: Boot, layout: DiskLayout, into: Path, scratch: Path) -> None:
    """Write the raw, sparse disk ``into``, whose root file system holds the tree ``root`` with its owners and modes.

    Needs the right to read ``root``, nothing more. ``scratch`` takes sparse files of the disk's size.
    """
    fat, ext4 = scratch / "boot.fat", scratch / "root.ext4"
    _make_boot_partition(fat, boot, layout.boot_size)
    _make_root(root, ext4, layout.root_size)
    with into.open("wb") as stream:
        stream.truncate(layout.size)
        stream.write(_boot_code())
        stream.seek(446)
        stream.write(partition_table(layout))
    _copy_into(fat, into, _BOOT_START)
    _copy_into(ext4, into, layout.root_offset)


def partition_table(layout: DiskLayout) -> bytes:
    """The last 66 bytes of an MBR: an active FAT16 partition, a Linux partition, the signature."""
    entries = (
        (0x80, 0x0E, _BOOT_START, layout.boot_size * MIB),
        (0x00, 0x83, layout.root_offset, layout.root_size * MIB),
    )
    return b"".join(_entry(*entry) for entry in entries) + bytes(32) + b"\x55\xaa"


def _entry(flag: int, kind: int, start: int, size: int) -> bytes:
    # Cylinders, heads and sectors mean "beyond these fields": every reader then takes the LBA.
    beyond = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", flag, beyond, kind, beyond, start // _SECTOR, size // _SECTOR)


def _boot_code() -> bytes:
    for path in map(Path, _MBR_CODE):
        if path.exists():
            return path.read_bytes()[:440]
    raise ConfigurationError("syslinux's mbr.bin is not installed", hint="./run installs what distgate needs")


def _make_boot_partition(fat: Path, boot: Boot, size: int) -> None:
    with fat.open("wb") as stream:
        stream.truncate(size * MIB)
    run(["mkfs.vfat", "-F", "16", "-n", "LABBOOT", fat], timeout=_PATIENCE)
    run(["mcopy", "-i", fat, boot.kernel, "::/vmlinuz"], timeout=_PATIENCE)
    run(["mcopy", "-i", fat, boot.initramfs, "::/initramfs.img"], timeout=_PATIENCE)
    configuration = fat.with_name("syslinux.cfg")
    configuration.write_text(
        "DEFAULT lab\nPROMPT 0\nTIMEOUT 0\nLABEL lab\n KERNEL /vmlinuz\n INITRD /initramfs.img\n"
        f" APPEND root={boot.root_device} rw {boot.arguments}\n"
    )
    run(["mcopy", "-i", fat, configuration, "::/syslinux.cfg"], timeout=_PATIENCE)
    run(["syslinux", "--install", fat], timeout=_PATIENCE)


def _make_root(root: Path, ext4: Path, size: int) -> None:
    with ext4.open("wb") as stream:
        stream.truncate(size * MIB)
    # No journal: a guest's disk is thrown away after the test, and half of the writes with it.
    features = ["-O", "^has_journal,^metadata_csum", "-E", "lazy_itable_init=1,nodiscard,root_owner=0:0"]
    run(["mke2fs", "-q", "-t", "ext4", *features, "-m", "0", "-L", "lab-root", "-d", root, ext4], timeout=600)


def _copy_into(part: Path, disk: Path, offset: int) -> None:
    argv = ["dd", f"if={part}", f"of={disk}", "bs=1M", f"seek={offset // MIB}", "conv=notrunc,sparse", "status=none"]
    run(argv, timeout=600)
