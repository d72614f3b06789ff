"""A compose installs exactly what it was given, or says in dnf's words why not, and leaves nothing behind."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from distgate.drivers.base import BaseImage
from distgate.drivers.offline_install import OfflineInstaller
from distgate.drivers.transaction import at_fault
from distgate.errors import InfrastructureError, PackageError
from distgate.packages import Nevra, read_rpms
from distgate.process import run
from distgate.waiting import wait_for

ONLY_LOOPBACK = "test $(tail -n +3 /proc/net/dev | wc -l) = 1 && grep -q lo: /proc/net/dev"
#: The classic way out of a chroot for root, and then a look for what is the host's own.
BREAK_OUT = """%post -p /usr/bin/python3
import os
os.makedirs("/outside")
door = os.open("/", os.O_RDONLY)
os.chroot("/outside")
os.fchdir(door)
for _ in range(64):
    os.chdir("..")
os.chroot(".")
assert not os.path.exists("/etc/shadow"), "the host's passwords are there"
assert not os.path.exists("/var/lib") and not os.path.exists("/etc/hostname"), "the host's files are there"
assert not any(name.startswith(("sd", "vd", "loop")) for name in os.listdir("/dev")), "the host's disks are there"
for place in ("/usr/bin", "/etc/passwd", "/proc/sys/kernel/core_pattern"):
    assert not os.access(place, os.W_OK), place + " can be written"
try:
    os.stat("/proc/1/root/etc")
except PermissionError:
    pass
else:
    raise SystemExit("process 1 leads out")
"""
#: Name, extra header lines, scriptlets.
SPECS = (
    ("plain", "Requires: companion", "%post\nls -ld /proc/self/ && : > /dev/null"),
    ("companion", "Epoch: 2", ""),
    ("offline", "", f"%post\n{ONLY_LOOPBACK}"),
    ("lonely", "Requires: nosuch-thing >= 3", ""),
    ("badpost", "", "%post\necho the disk is purple >&2; exit 3"),
    ("badpre", "", "%pre\nexit 4"),
    ("clash", "Conflicts: bash", ""),
    ("replaced", "", ""),
    ("replacement", "Obsoletes: replaced < 9", ""),
    ("daemon", "", "%post\nsleep 3600 & :"),
    ("hanging", "", "%post\nsleep 3600"),
    (
        "confined",
        "",
        "%post\n! mknod /root/disk b 8 0 && ! mount -t tmpfs none /mnt && ! hostname other && chown 1 /root",
    ),
    ("houdini", "Requires: python3", BREAK_OUT),
    ("tidy", "", '%post\ntest -z "$(ls -A /tmp)"'),
    ("needy", "Requires: unzip", ""),
    ("less", "", ""),
)
SPEC = """Name: {name}
Version: 1.0
Release: 3
Summary: {name}
License: MIT
BuildArch: noarch
{extra}
%description
{name}
%install
mkdir -p %{{buildroot}}/usr/share/{name}
%files
/usr/share/{name}
{scriptlets}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("rpms")
    specs = []
    for name, extra, scriptlets in SPECS:
        specs.append(top / f"{name}.spec")
        specs[-1].write_text(SPEC.format(name=name, extra=extra, scriptlets=scriptlets))
    run(["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {top}", *specs], timeout=120)
    run(["createrepo_c", "-q", top / "RPMS"], timeout=60)
    return top / "RPMS"


@pytest.fixture(scope="module")
def built(repository: Path) -> dict[str, Nevra]:
    return {rpm.nevra.name: rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))}


@contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def left_behind(directory: Path) -> list[str]:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    loops = run(["losetup", "-a"], timeout=10).output.splitlines()
    return [*mounts, *(line for line in loops if str(directory) in line)]


def processes_of(directory: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(directory) in words:
                found.append(int(entry.name))
    return found


def test_the_packages_and_their_dependencies_are_read_back_from_the_image(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["plain"]], tmp_path / "image.qcow2")
    assert {built["plain"], built["companion"]} <= set(image.installed)
    assert image.requested == (built["plain"],)
    assert (image.base, image.backing) == (base_image.identity, base_image.path)
    assert image.size == (tmp_path / "image.qcow2").stat().st_size < 64 << 20
    assert "Complete!" in image.transaction
    assert [path.name for path in tmp_path.iterdir()] == ["image.qcow2"]
    assert not left_behind(tmp_path)


def test_dependencies_come_from_the_bases_own_repositories(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["needy"]], tmp_path / "image.qcow2")
    assert "unzip" in {package.name for package in image.installed}


def test_a_repository_behind_http_is_fetched_from_before_the_network_goes(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with served(Path(base_image.repositories[0])) as url:
        base = replace(base_image, repositories=(url,))
        wanted = [built["needy"], built["offline"]]
        image = OfflineInstaller().compose(base, repository, wanted, tmp_path / "image.qcow2")
    assert {"unzip", "offline"} <= {package.name for package in image.installed}


def test_scriptlets_see_no_network_but_loopback(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["offline"]], tmp_path / "image.qcow2")
    assert built["offline"] in image.installed


def test_nothing_of_this_host_gets_into_the_image(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    assert tmp_path.is_relative_to("/tmp")
    image = OfflineInstaller().compose(base_image, repository, [built["tidy"]], tmp_path / "image.qcow2")
    assert built["tidy"] in image.installed


def test_scriptlets_make_no_device_mount_nothing_and_leave_the_host_alone(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["confined"]], tmp_path / "image.qcow2")
    assert built["confined"] in image.installed


def test_a_scriptlet_that_leaves_its_chroot_finds_nothing_of_the_host(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["houdini"]], tmp_path / "image.qcow2")
    assert built["houdini"] in image.installed


def test_the_exact_package_is_installed_even_where_the_base_has_a_newer_one(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["less"]], tmp_path / "image.qcow2")
    assert [package for package in image.installed if package.name == "less"] == [built["less"]]


def test_a_rebuild_of_what_the_base_has_already_replaces_it(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    first = OfflineInstaller().compose(base_image, repository, [built["companion"]], tmp_path / "first.qcow2")
    grown = replace(base_image, path=first.path, identity="grown")
    second = OfflineInstaller().compose(grown, repository, [built["companion"]], tmp_path / "second.qcow2")
    assert "Reinstalled:" in second.transaction
    assert built["companion"] in second.installed


REFUSED = (
    (("lonely",), "nothing provides nosuch-thing >= 3 needed by lonely-1.0-3.noarch"),
    (("clash",), "conflicts with"),
    (("badpre",), r"%prein\(badpre-1.0-3.noarch\) scriptlet failed, exit status 4"),
    (("badpost",), "the disk is purple"),
    (("plain", "badpost"), r"%post\(badpost-1.0-3.noarch\) scriptlet failed, exit status 3"),
    (("replaced", "replacement"), "replaced-1.0-3.noarch"),
)


@pytest.mark.parametrize(("names", "words"), REFUSED, ids=[names[-1] for names, _ in REFUSED])
def test_packages_that_cannot_be_installed_are_to_blame_in_dnfs_words(
    base_image: BaseImage,
    repository: Path,
    built: dict[str, Nevra],
    tmp_path: Path,
    names: tuple[str, ...],
    words: str,
) -> None:
    with pytest.raises(PackageError) as refused:
        OfflineInstaller().compose(base_image, repository, [built[n] for n in names], tmp_path / "image.qcow2")
    assert re.search(words, f"{refused.value} {refused.value.evidence}")
    assert list(tmp_path.iterdir()) == []
    assert not left_behind(tmp_path)


def test_a_package_that_is_not_in_the_repository_is_our_mistake(
    base_image: BaseImage, repository: Path, tmp_path: Path
) -> None:
    unknown = Nevra("unknown", 0, "1", "1", "noarch")
    with pytest.raises(InfrastructureError, match="unknown-0:1-1"):
        OfflineInstaller().compose(base_image, repository, [unknown], tmp_path / "image.qcow2")


def test_a_repository_that_is_gone_is_infrastructure(
    base_image: BaseImage, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError):
        OfflineInstaller().compose(base_image, tmp_path / "nowhere", [built["less"]], tmp_path / "image.qcow2")


def test_a_base_image_that_is_no_image_is_infrastructure(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    (tmp_path / "base.qcow2").write_bytes(b"QFI, almost")
    broken = replace(base_image, path=tmp_path / "base.qcow2")
    with pytest.raises(InfrastructureError):
        OfflineInstaller().compose(broken, repository, [built["less"]], tmp_path / "image.qcow2")
    assert not left_behind(tmp_path)


def test_what_a_scriptlet_leaves_running_is_ended(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    OfflineInstaller().compose(base_image, repository, [built["daemon"]], tmp_path / "image.qcow2")
    assert not left_behind(tmp_path)
    assert not processes_of(tmp_path)


def test_a_hanging_scriptlet_ends_with_the_deadline_and_leaves_nothing(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError) as late:
        OfflineInstaller(timeout=5).compose(base_image, repository, [built["hanging"]], tmp_path / "image.qcow2")
    assert "killed after 5 s" in str(late.value)
    assert "Running scriptlet: hanging" in late.value.evidence
    wait_for("the mounts to go", lambda: not left_behind(tmp_path) and not processes_of(tmp_path), 20)
    assert list(tmp_path.iterdir()) == []


COMPOSE = """
import sys
from pathlib import Path
from distgate.drivers.offline_install import OfflineInstaller
from distgate.packages import Nevra
from lab.base_image import read_record
base, repository, into = map(Path, sys.argv[1:])
OfflineInstaller().compose(read_record(base), repository, [Nevra("hanging", 0, "1.0", "3", "noarch")], into)
"""


def test_a_killed_worker_leaves_no_mount_no_loop_device_and_no_process(
    base_image: BaseImage, repository: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image.qcow2"
    worker = subprocess.Popen([sys.executable, "-c", COMPOSE, base_image.path, repository, image])
    try:
        wait_for("the loop device", lambda: left_behind(tmp_path), 60)
        assert processes_of(tmp_path)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for("everything to go", lambda: not left_behind(tmp_path) and not processes_of(tmp_path), 20)
    assert not image.exists()


SAID = (
    ("Error: \n Problem: conflicting requests\n  - nothing provides x needed by y", "package"),
    (
        "Error: Transaction test error:\n  file /usr/bin/x from install of a conflicts with file from package b",
        "package",
    ),
    ("error: %prein(a-1-1.noarch) scriptlet failed, exit status 4", "package"),
    ("error: unpacking of archive failed on file /usr/bin/x: cpio: read failed", "package"),
    (
        "error: unpacking of archive failed on file /usr/x: cpio: write failed - No space left on device",
        "infrastructure",
    ),
    ("At least 300MB more space needed on the / filesystem.", "infrastructure"),
    ("Error: Failed to download metadata for repo 'base-0': Cannot download repomd.xml", "infrastructure"),
    ("Error: Unable to find a match: x-0:1-1.noarch", "infrastructure"),
    ("Traceback (most recent call last):", "infrastructure"),
    ("", "infrastructure"),
)


@pytest.mark.parametrize(("said", "blame"), SAID)
def test_the_words_of_dnf_tell_who_is_to_blame(said: str, blame: str) -> None:
    assert at_fault(said) == blame
