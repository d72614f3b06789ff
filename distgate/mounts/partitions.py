"""Where the root file system starts in a disk image: partition tables read as bytes, nothing mounted."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.process import run

_SECTOR = 512
_QCOW2 = b"QFI\xfb"
_LINUX, _LVM, _PROTECTIVE = 0x83, 0x8E, 0xEE
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
#: No table has more logical partitions than this; a chain that is longer bites its own tail.
_LONGEST_CHAIN = 128
_GPT_LINUX = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
_GPT_LVM = UUID("e6d6d379-f507-44c2-a23c-238f2a3df928")
#: The Discoverable Partitions Specification's root partitions, of the architectures that Fedora is built for.
_GPT_ROOTS = frozenset(
    map(
        UUID,
        (
            "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",  # x86-64
            "44479540-f297-41b2-9af7-d131d5f0458a",  # x86
            "b921b045-1df0-41c3-af44-4c6f280d3fae",  # aarch64
            "69dad710-2ce4-4e3c-b16c-21a1d49abed3",  # arm
            "c31c45e6-3f39-412e-80fb-4809c4980599",  # ppc64le
            "5eead9a9-fe09-4a1e-a1d7-520d00531306",  # s390x
            "72ec70a6-cf74-40e6-bd49-4bda08e8f224",  # riscv64
        ),
    )
)
#: Offset and bytes by which a file system without a partition table is known: ext, XFS, Btrfs.
_FILE_SYSTEMS = ((1080, b"\x53\xef"), (0, b"XFSB"), (65600, b"_BHRfS_M"))


@dataclass(frozen=True)
class _Partition:
    """``start`` and ``size`` in bytes; ``kind`` is root, linux, lvm or other."""

    start: int
    size: int
    kind: str


def root_offset(image: Path) -> int:
    """How many bytes into the disk of ``image`` (qcow2 or raw) the root file system starts.

    That is the partition typed as a root, else the largest Linux partition, else 0 for a file system without a
    partition table. Raises ConfigurationError when there is none of them, InfrastructureError when the image
    cannot be read.
    """
    disk = _Disk(image)
    partitions = list(_partitions(disk))
    for kind in ("root", "linux"):
        fitting = [partition for partition in partitions if partition.kind == kind]
        if fitting:
            return max(fitting, key=lambda partition: partition.size).start
    if not partitions and any(disk.read(at, len(magic)) == magic for at, magic in _FILE_SYSTEMS):
        return 0
    raise ConfigurationError(
        f"{image.name} has no root file system that can be found from outside",
        hint="put / on a plain partition, not in LVM"
        if any(partition.kind == "lvm" for partition in partitions)
        else "the kickstart's 'part /' makes one",
    )


class _Disk:
    """The bytes of the virtual disk."""

    def __init__(self, image: Path) -> None:
        self.image = image
        try:
            with image.open("rb") as stream:
                self.is_qcow2 = stream.read(4) == _QCOW2
        except OSError as error:
            raise InfrastructureError(f"cannot read the image {image.name}: {error.strerror}") from error

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes at ``offset``; fewer at the disk's end."""
        if self.is_qcow2:
            return self._read_qcow2(offset, size)
        with self.image.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)

    def _read_qcow2(self, offset: int, size: int) -> bytes:
        first, last = offset // _SECTOR, -(-(offset + size) // _SECTOR)
        with tempfile.TemporaryDirectory(prefix="distgate-layout-") as name:
            piece = Path(name) / "sectors"
            operands = [f"if={self.image}", f"of={piece}", f"bs={_SECTOR}", f"skip={first}", f"count={last}"]
            # qemu-img dd counts from the disk's start: count includes what is skipped.
            run(["qemu-img", "dd", "-f", "qcow2", "-O", "raw", *operands], timeout=60, error=InfrastructureError)
            begin = offset - first * _SECTOR
            return piece.read_bytes()[begin : begin + size]


def _partitions(disk: _Disk) -> Iterator[_Partition]:
    head = disk.read(0, _SECTOR)
    if head[510:512] != b"\x55\xaa":
        return
    entries = list(_mbr_entries(head))
    if any(kind == _PROTECTIVE for kind, _, _ in entries):
        yield from _gpt(disk)
        return
    for kind, start, count in entries:
        if kind in _EXTENDED:
            yield from _logical(disk, start)
        else:
            yield _mbr_partition(kind, start, count)


def _mbr_entries(sector: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, first sector and number of sectors of each entry that makes sense."""
    for at in range(446, 510, 16):
        flag, kind, start, count = struct.unpack("<B3xB3xII", sector[at : at + 16])
        if flag in (0, 0x80) and kind and start and count:
            yield kind, start, count


def _mbr_partition(kind: int, start: int, count: int) -> _Partition:
    return _Partition(start * _SECTOR, count * _SECTOR, {_LINUX: "linux", _LVM: "lvm"}.get(kind, "other"))


def _logical(disk: _Disk, extended: int) -> Iterator[_Partition]:
    table = extended
    for _ in range(_LONGEST_CHAIN):
        further = None
        for kind, start, count in _mbr_entries(disk.read(table * _SECTOR, _SECTOR)):
            if kind in _EXTENDED:
                further = extended + start  # counted from the first of the chain
            else:
                yield _mbr_partition(kind, table + start, count)
        if further is None:
            return
        table = further


def _gpt(disk: _Disk) -> Iterator[_Partition]:
    for sector in (512, 4096):
        header = disk.read(sector, 92)
        if len(header) == 92 and header[:8] == b"EFI PART":
            table, count, width = struct.unpack_from("<QII", header, 72)
            width = min(max(width, 128), 4096)
            entries = disk.read(table * sector, min(count, 1024) * width)
            for at in range(0, len(entries) - 127, width):
                yield from _gpt_entry(entries[at : at + width], sector)
            return


def _gpt_entry(entry: bytes, sector: int) -> Iterator[_Partition]:
    kind, first, last = UUID(bytes_le=entry[:16]), *struct.unpack_from("<QQ", entry, 32)
    if kind.int:
        name = "root" if kind in _GPT_ROOTS else {_GPT_LINUX: "linux", _GPT_LVM: "lvm"}.get(kind, "other")
        yield _Partition(first * sector, (last - first + 1) * sector, name)
