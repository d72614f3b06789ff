"""The root file system is found in every kind of disk that an installer makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.mounts.partitions import root_offset
from distgate.process import run

MIB = 1 << 20
X86_ROOT = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
#: sfdisk's words for a disk of 64 MiB, and where the root starts in MiB.
TABLES = (
    ("label: dos\nstart=2048, size=8M, type=c\nstart=9M, type=83", 9),
    ("label: dos\nstart=1M, size=8M, type=83\nstart=10M, size=30M, type=83\nstart=41M, size=4M, type=82", 10),
    ("label: dos\nstart=1M, size=8M, type=83\nstart=10M, size=50M, type=5\nstart=12M, size=20M, type=83", 12),
    (
        "label: dos\nstart=1M, size=2M, type=83\nstart=4M, size=59M, type=f\nstart=5M, size=8M, type=83\n"
        "start=16M, size=9M, type=83",
        16,
    ),
    ("label: gpt\nstart=1M, size=2M, type=U\nstart=4M, size=50M, type=L", 4),
    (f"label: gpt\nstart=1M, size=40M, type=L\nstart=42M, size=10M, type={X86_ROOT}", 42),
)
REFUSED = (
    ("label: dos\nstart=1M, size=8M, type=c", "'part /' makes one"),
    ("label: dos\nstart=1M, size=8M, type=c\nstart=10M, type=8e", "not in LVM"),
    ("label: gpt\nstart=1M, size=8M, type=U\nstart=10M, type=V", "not in LVM"),
)


def disk(directory: Path, table: str, kind: str) -> Path:
    raw = directory / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(64 * MIB)
    run(["sfdisk", "-q", raw], timeout=60, stdin=f"{table}\n")
    return converted(raw, kind)


def converted(raw: Path, kind: str) -> Path:
    image = raw.with_suffix(f".{kind}")
    if kind != "raw":
        run(["qemu-img", "convert", "-f", "raw", "-O", kind, raw, image], timeout=60)
    return image


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize(("table", "expected"), TABLES)
def test_the_root_is_the_partition_typed_so_or_the_largest_linux_one(
    tmp_path: Path, table: str, expected: int, kind: str
) -> None:
    assert root_offset(disk(tmp_path, table, kind)) == expected * MIB


@pytest.mark.parametrize(("table", "hint"), REFUSED)
def test_a_disk_without_a_plain_root_partition_is_refused(tmp_path: Path, table: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        root_offset(disk(tmp_path, table, "qcow2"))
    assert hint in refused.value.hint


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_file_system_on_the_whole_disk_starts_at_zero(tmp_path: Path, kind: str) -> None:
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as stream:
        stream.truncate(8 * MIB)
    run(["mke2fs", "-q", "-t", "ext4", raw], timeout=60)
    assert root_offset(converted(raw, kind)) == 0


@pytest.mark.parametrize("content", [b"", b"QFI\xfb, almost", bytes(4096), b"\x55\xaa" * 4096])
def test_what_is_no_disk_is_refused(tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(content)
    with pytest.raises((ConfigurationError, InfrastructureError)):
        root_offset(image)


def test_an_image_that_is_not_there_is_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="No such file"):
        root_offset(tmp_path / "nowhere.qcow2")


def test_a_chain_of_logical_partitions_that_bites_its_tail_ends(tmp_path: Path) -> None:
    image = disk(tmp_path, "label: dos\nstart=4M, size=59M, type=5\nstart=5M, size=8M, type=83", "raw")
    with image.open("r+b") as stream:
        # The second entry of the extended table: "the next table is this one".
        stream.seek(4 * MIB + 446 + 16)
        stream.write(bytes([0, 0, 0, 0, 5, 0, 0, 0]) + (0).to_bytes(4, "little") + (9).to_bytes(4, "little"))
    assert root_offset(image) == 5 * MIB
