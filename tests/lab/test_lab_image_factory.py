"""The lab's imagefactory follows a kickstart that distgate edited, and fails in the real one's words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.errors import DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.kickstart.base import BuiltImage
from distgate.kickstart.edit import with_packages_under_test
from distgate.kickstart.imagefactory import ImageFactory
from distgate.mounts.partitions import root_offset
from distgate.process import run
from distgate.rpm.nevra import Nevra, read_rpms
from distgate.waiting import wait_for
from lab.images.base_image import lab_definition
from lab.images.imagefactory import COMMAND, FAULTS, INSTALL_URL, RESOURCES

SPEC = """Name: {name}
Version: 9.9
Release: 1
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
{scriptlet}
"""
#: Built packages; e2fsprogs has the name of one that the lab's repository holds too.
SPECS = (
    ("e2fsprogs", "", ""),
    ("shaping", "Requires: e2fsprogs = 9.9", "%post\necho shaped > /usr/share/shaping/how"),
    ("lonely", "Requires: libnosuch.so.7", ""),
    ("badpost", "", "%post\nexit 3"),
)


@dataclass(frozen=True)
class Packages:
    """A repository of built RPMs, and what is in it by name."""

    url: str
    built: dict[str, Nevra]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    top = tmp_path_factory.mktemp("rpms")
    specs = []
    for name, extra, scriptlet in SPECS:
        specs.append(top / f"{name}.spec")
        specs[-1].write_text(SPEC.format(name=name, extra=extra, scriptlet=scriptlet))
    run(["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {top}", *specs], timeout=120)
    run(["createrepo_c", "-q", top / "RPMS"], timeout=60)
    rpms = read_rpms(sorted((top / "RPMS").rglob("*.rpm")))
    return Packages((top / "RPMS").as_uri(), {rpm.nevra.name: rpm.nevra for rpm in rpms})


@pytest.fixture(scope="module")
def definition(cache: Path) -> str:
    """The lab's kickstart with its repository and key in it."""
    return lab_definition(cache, print).kickstart


@pytest.fixture(scope="module")
def small(definition: str) -> str:
    """The same with few packages: a kernel, and what its scripts need."""
    few = "\n".join(("bash", "coreutils", "kernel-core", "openssh"))
    changed = definition.replace(
        "%packages --exclude-weakdeps\n@core", f"%packages --exclude-weakdeps --nocore\n{few}"
    )
    assert changed != definition
    return changed


def build(kickstart: str, into: Path, **options: object) -> tuple[BuiltImage, list[str]]:
    lines: list[str] = []
    facts: dict[str, object] = {"no_progress_timeout": 120.0, "grace": 1.0} | options
    factory = ImageFactory(command=COMMAND, install_url=INSTALL_URL, resources=RESOURCES, **facts)  # type: ignore[arg-type]
    return factory.build(kickstart, "lab-cloud", "rawhide", into / "image.qcow2", 600, lines.append), lines


def test_an_edited_kickstart_becomes_a_disk_with_exactly_the_packages_under_test(
    small: str, packages: Packages, tmp_path: Path
) -> None:
    wanted = [packages.built["shaping"], packages.built["e2fsprogs"]]
    built, lines = build(with_packages_under_test(small, packages.url, wanted), tmp_path)
    offset = root_offset(built.path)
    log = built.log.read_text()
    assert all(f"  {package}\n" in log for package in wanted)
    assert any("the root file system" in line for line in lines)
    assert said_in_the_image(built.path, offset, "/usr/share/shaping/how", tmp_path) == "shaped\n"
    key = said_in_the_image(built.path, offset, "/root/.ssh/authorized_keys", tmp_path)
    assert key.startswith("ssh-ed25519 ")
    assert key.strip() in small


def said_in_the_image(image: Path, offset: int, file: str, scratch: Path) -> str:
    raw = scratch / "disk.raw"
    if not raw.exists():
        run(["qemu-img", "convert", "-O", "raw", image, raw], timeout=120)
    said = run(["debugfs", "-R", f"cat {file}", f"{raw}?offset={offset}"], timeout=60, split_errors=True)
    return said.output


#: The package under test, and the words of the refusal.
REFUSED = (("lonely", "nothing provides libnosuch.so.7"), ("badpost", "scriptlet failed, exit status 3"))


@pytest.mark.parametrize(("name", "words"), REFUSED)
def test_packages_that_do_not_install_are_to_blame(
    small: str, packages: Packages, tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(PackageError) as refused:
        build(with_packages_under_test(small, packages.url, [packages.built[name]]), tmp_path)
    assert words in refused.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["image.qcow2.imagefactory.log"]


#: The fault's word, the error that the driver makes of it, and words of that.
FAILING: tuple[tuple[str, type[DistgateError], str], ...] = (
    ("hang", TimedOut, "no progress for 3 s"),
    ("silent", TimedOut, "no progress for 3 s"),
    ("die", InfrastructureError, "ended by SIGKILL"),
    ("inactive", TimedOut, "image.qcow2.imagefactory.screen.ppm"),
    ("unresolvable", PackageError, "nothing provides libnosuch.so.7"),
)


@pytest.mark.parametrize(("word", "kind", "words"), FAILING, ids=[word for word, _, _ in FAILING])
def test_a_fault_on_demand_looks_like_the_real_ones(
    definition: str, tmp_path: Path, word: str, kind: type[DistgateError], words: str
) -> None:
    with pytest.raises(kind) as failed:
        build(definition, tmp_path, parameters={"lab_fault": word}, no_progress_timeout=3.0)
    assert type(failed.value) is kind
    assert words in f"{failed.value} {failed.value.evidence}"


def test_every_fault_is_tried() -> None:
    assert set(FAULTS) == {word for word, _, _ in FAILING}


#: Kickstarts that a real installer might follow, and why the lab does not.
ODD: tuple[tuple[Callable[[str], str], str], ...] = (
    (lambda text: text.replace("part / --fstype=ext4 --size=1000\n", ""), "part / --size"),
    (lambda text: text + "\n%post --nochroot\nreboot\n%end\n", "no %post --nochroot"),
    (lambda text: text + "\nno-such-command\n", "no-such-command"),
)


@pytest.mark.parametrize(("change", "words"), ODD, ids=[words for _, words in ODD])
def test_a_kickstart_that_cannot_be_followed_fails_with_the_reason(
    definition: str, tmp_path: Path, change: Callable[[str], str], words: str
) -> None:
    with pytest.raises(InfrastructureError) as refused:
        build(change(definition), tmp_path)
    assert words in refused.value.message


def test_the_command_distgate_lab_imagefactory_is_the_same_program() -> None:
    distgate = Path(sys.executable).with_name("distgate")
    said = run([distgate, "lab", "imagefactory", "base_image", "--help"], timeout=60).output
    assert "--file-parameter" in said
    assert run([distgate, "lab", "imagefactory", "--version"], timeout=60).output == "1.1.16\n"


def test_the_storage_is_the_real_ones_whatever_the_outcome(tmp_path: Path) -> None:
    (tmp_path / "factory.json").write_text(
        json.dumps({"image_manager_args": {"storage_path": str(tmp_path / "storage")}, "tmpdir": str(tmp_path)})
    )
    (tmp_path / "image.tdl").write_text("<template><os><version>12</version></os></template>")
    words = [*COMMAND, "--config", tmp_path / "factory.json", "base_image", tmp_path / "image.tdl"]
    done = run(words, timeout=60, allowed=(1,))
    assert "Image build FAILED with error: " in done.output
    meta = json.loads(next((tmp_path / "storage").glob("*.meta")).read_text())
    assert meta["status"] == "FAILED"
    assert Path(meta["data"]) == tmp_path / "storage" / f"{meta['identifier']}.body"


WORKER = """
import sys
from pathlib import Path
from distgate.kickstart.imagefactory import ImageFactory
from lab.images.imagefactory import COMMAND, INSTALL_URL, RESOURCES
factory = ImageFactory(command=COMMAND, install_url=INSTALL_URL, resources=RESOURCES, grace=1.0)
factory.build(sys.stdin.read(), "lab-cloud", "12", Path(sys.argv[1]), 600)
"""


def test_a_worker_killed_in_the_middle_of_the_installation_leaves_no_mount_and_no_process(
    definition: str, tmp_path: Path
) -> None:
    image = tmp_path / "image.qcow2"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, image], stdin=subprocess.PIPE)
    assert worker.stdin
    worker.stdin.write(definition.encode())
    worker.stdin.close()
    try:
        wait_for("dnf in the new root", lambda: left_behind(f"--installroot={tmp_path}"), 60)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_for("everything to go", lambda: not left_behind(str(tmp_path)), 30)
    assert not image.exists()


def left_behind(words: str) -> list[str]:
    """The command lines of processes, and the mounts, in which ``words`` occur."""
    said = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if words in line]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                said += [text for text in [(entry / "cmdline").read_text()] if words in text]
    return said
