"""Debian's files find their RPM, and Fedora's names find their package."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from distgate.process import run
from lab.distribution.cache import ensure_entry, identity_of
from lab.distribution.dpkg import installed, rpm_version
from lab.distribution.file_owners import LEFTOVERS, SETUP, assign_files, resolve
from lab.distribution.initramfs import cpio_archive
from lab.distribution.rpm_repository import Repository, ensure_repository
from lab.images.disk import DiskLayout, partition_table

VERSIONS = (
    ("5.2.15-2+b13", ("5.2.15", "2+b13")),
    ("1:9.2p1-2+deb12u5", ("9.2p1", "2+deb12u5")),
    ("252.39-1~deb12u1", ("252.39", "1~deb12u1")),
    ("12.4+deb12u5", ("12.4+deb12u5", "1")),
    ("1.0-rc1-3", ("1.0.rc1", "3")),
)


@pytest.mark.parametrize(("debian", "expected"), VERSIONS)
def test_a_debian_version_becomes_version_and_release(debian: str, expected: tuple[str, str]) -> None:
    assert rpm_version(debian) == expected


STATUS = """Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Pre-Depends: libc6 (>= 2.36)
Depends: base-files (>= 2.1.12), debianutils | other-utils
Provides: shell (= 5), sh-provider
Description: GNU Bourne Again SHell
 long text

Package: dash
Status: install ok installed
Architecture: amd64
Version: 0.5-1
Description: POSIX shell

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1
"""
LISTS = {
    "bash": "/.\n/bin\n/bin/bash\n/usr\n/usr/lib\n/usr/lib/mod.py\n",
    "dash:amd64": "/.\n/bin\n/bin/dash\n/bin/sh\n/usr/lib\n",
}


@pytest.fixture
def debian(tmp_path: Path) -> Path:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info.parent / "status").write_text(STATUS)
    for name, text in LISTS.items():
        (info / f"{name}.list").write_text(text)
    for name in ("etc", "usr/bin", "usr/lib/__pycache__", "proc/1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    for name in ("usr/bin/bash", "usr/bin/dash", "etc/passwd", "etc/nsswitch.conf", "etc/hostname", "proc/1/stat"):
        (tmp_path / name).touch()
    for name in ("usr/lib/mod.py", "usr/lib/__pycache__/mod.cpython-311.pyc"):
        (tmp_path / name).touch()
    (tmp_path / "usr/bin/sh").symlink_to("bash")
    (tmp_path / "etc/shell").symlink_to("/bin/sh")
    return tmp_path


def test_only_configured_packages_are_installed(debian: Path) -> None:
    packages = installed(debian)
    assert sorted(packages) == ["bash", "dash"]
    assert packages["bash"].depends == (("libc6",), ("base-files",), ("debianutils", "other-utils"))
    assert packages["bash"].provides == ("shell", "sh-provider")
    assert packages["bash"].summary == "GNU Bourne Again SHell"


OWNERS = (
    ("/usr/bin/bash", "bash"),  # dpkg says /bin/bash
    ("/usr/bin/sh", "bash"),  # dash is dropped, and the link leads to bash
    ("/usr/bin/dash", None),
    ("/etc/shell", "bash"),  # no deb lists it; it leads to bash by way of an absolute link
    ("/usr/lib/__pycache__/mod.cpython-311.pyc", "bash"),  # its source does
    ("/etc/passwd", SETUP),
    ("/etc/nsswitch.conf", LEFTOVERS),
    ("/bin", LEFTOVERS),
    ("/proc", LEFTOVERS),
    ("/proc/1/stat", None),
    ("/etc/hostname", None),
    ("/var/lib/dpkg/status", None),
)


@pytest.mark.parametrize(("path", "owner"), OWNERS)
def test_every_file_has_one_owner_or_stays_out(debian: Path, path: str, owner: str | None) -> None:
    owned = assign_files(debian, installed(debian), ["dash"], {})
    assert [name for name, files in owned.items() if path in {file.path for file in files}] == (
        [owner] if owner else []
    )


def test_links_are_followed_inside_the_root(debian: Path) -> None:
    assert resolve(debian, "/etc/shell") == "/usr/bin/bash"


def test_the_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    (tmp_path / "tree/bin").mkdir(parents=True)
    (tmp_path / "tree/bin/busybox").write_bytes(b"\x7fELF?")
    (tmp_path / "tree/bin/sh").symlink_to("busybox")
    archive = cpio_archive(tmp_path / "tree")
    (tmp_path / "archive").write_bytes(archive)
    (tmp_path / "out").mkdir()
    with (tmp_path / "archive").open("rb") as stream:
        subprocess.run(["cpio", "-i", "--quiet"], stdin=stream, cwd=tmp_path / "out", check=True)
    assert (tmp_path / "out/bin/busybox").read_bytes() == b"\x7fELF?"
    assert os.readlink(tmp_path / "out/bin/sh") == "busybox"
    assert archive == cpio_archive(tmp_path / "tree")


def test_the_partition_table_is_what_tools_read(tmp_path: Path) -> None:
    layout = DiskLayout(root_size=100, boot_size=64)
    with (tmp_path / "disk").open("wb") as stream:
        stream.truncate(layout.size)
        stream.seek(446)
        stream.write(partition_table(layout))
    said = run(["partx", "-g", "-o", "START,SECTORS,TYPE,FLAGS", "--bytes", tmp_path / "disk"], timeout=10).output
    boot, root = (line.split() for line in said.splitlines())
    assert boot == ["2048", "131072", "0xe", "0x80"]
    assert root[:3] == [str(layout.root_offset // 512), "204800", "0x83"]


def test_an_entry_is_made_once_for_any_number_of_callers(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(into: Path) -> None:
        made.append(into)
        (into / "file").touch()

    callers = [threading.Thread(target=ensure_entry, args=(tmp_path, "kind", "1", make)) for _ in range(5)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(made) == 1
    assert (tmp_path / "kind/1/file").exists()


def test_a_maker_that_fails_leaves_no_entry(tmp_path: Path) -> None:
    def fail(into: Path) -> None:
        (into / "half").touch()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ensure_entry(tmp_path, "kind", "1", fail)
    assert list((tmp_path / "kind").iterdir()) == []


def test_entries_that_nobody_asked_for_in_a_month_make_room(tmp_path: Path) -> None:
    def make(into: Path) -> None:
        (into / "file").touch()

    old, asked_for = (ensure_entry(tmp_path, "kind", name, make) for name in ("old", "asked-for"))
    for entry in (old, asked_for):
        os.utime(entry, (0, 0))
    ensure_entry(tmp_path, "kind", "asked-for", make)
    ensure_entry(tmp_path, "kind", "new", make)
    assert sorted(path.name for path in (tmp_path / "kind").iterdir()) == ["asked-for", "new"]


def test_the_borders_of_the_parts_count_for_an_identity() -> None:
    assert identity_of("ab", "c") != identity_of("a", "bc")


@pytest.fixture(scope="module")
def repository(cache: Path) -> Repository:
    return ensure_repository(cache, print)


@pytest.fixture(scope="module")
def providers(repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    state = tmp_path_factory.mktemp("dnf")
    options = [f"--setopt=cachedir={state}", f"--setopt=logdir={state}", "--setopt=reposdir=/nonexistent"]

    def ask(capability: str) -> str:
        words = ["repoquery", "-q", f"--repofrompath=lab,{repository.url}", "--qf", "%{name}", "--whatprovides"]
        return run(["dnf", *options, *words, capability], timeout=60, split_errors=True).output.strip()

    return ask


CAPABILITIES = (
    ("glibc-devel", "libc6-dev"),
    ("perl-interpreter", "perl"),
    ("perl(File::Temp)", "perl-modules-5.36"),
    ("pkgconfig(zlib)", "zlib1g-dev"),
    ("shadow-utils", "passwd"),
    ("redhat-rpm-config", "rpm"),
    ("libc.so.6(GLIBC_2.34)(64bit)", "libc6"),
    ("rtld(GNU_HASH)", "libc6"),
    ("/bin/sh", "bash"),
    ("/usr/bin/sh", "bash"),
    ("/usr/bin/msgfmt", "gettext"),
    ("/sbin/ldconfig", "libc-bin"),
    ("python(abi) = 3.11", "python3.11"),
    ("kernel", "kernel-core"),
)


@pytest.mark.parametrize(("capability", "package"), CAPABILITIES)
def test_what_fedoras_specs_ask_for_is_provided(
    providers: Callable[[str], str], capability: str, package: str
) -> None:
    assert package in providers(capability).splitlines()
