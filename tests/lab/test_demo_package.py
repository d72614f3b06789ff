"""The demo package builds for real, and each of its breaks fails in the one stage that it is named after."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from koji_world import KojiWorld, koji_world

from distgate.builds.unit_tests import unit_tests
from distgate.errors import ConfigurationError, InfrastructureError, PackageError
from distgate.guests.host import LibvirtGuests
from distgate.images.layered import OfflineInstaller
from distgate.images.smoke import INSTALLED_COMMAND, KERNEL_COMMAND, judge
from distgate.pipelines import STAGES
from distgate.rpm.nevra import Nevra, RpmFile, read_rpms, under_test
from distgate.rpm.repository import make_repository
from lab.dist_git.demo_package import NAME, VERSION, Break, breaks, ensure_tarball, package_files, push_change, seed
from lab.dist_git.lookaside import upload
from lab.dist_git.repository import git
from lab.dist_git.server import DistGitServer
from lab.images.base_image import ensure_base

PATIENCE = 300.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("demo"), cache) as running:
        yield running


@pytest.fixture(scope="module")
def repository(world: KojiWorld, cache: Path) -> Path:
    return seed(world.root, cache, print)


def submitted(world: KojiWorld, repository: Path, stage: str) -> int:
    rev = push_change(repository, "f41", stage)
    return world.client().submit(f"git+{world.dist_git.url}/rpms/{NAME}.git#{rev}", "f41", "x86_64")


def built(world: KojiWorld, repository: Path, stage: str, room: Path) -> list[RpmFile]:
    """The RPMs under test of a commit with this break, in a repository at ``room``."""
    task_id = submitted(world, repository, stage)
    world.client().wait(task_id, PATIENCE, print)
    paths = world.client().download(task_id, room, "x86_64")
    make_repository(room)
    return under_test(read_rpms([path for path in paths if path.suffix == ".rpm"]))


def test_there_is_a_break_for_every_stage_and_each_matches_the_package() -> None:
    known = breaks()
    own = ["ostree", "integration", "reboot", "image", "e2e"]
    assert list(known) == ["build", "check", "compose", "smoke", "tests", *own]
    for pipeline, only in [("allpackages", []), ("atomic", own)]:
        failing = {name: one.fails[pipeline].split() for name, one in known.items() if pipeline in one.fails}
        assert {suffix for suffix, _ in failing.values()} <= set(STAGES[pipeline])
        assert {status for _, status in failing.values()} <= {"FAILURE", "UNSTABLE"}
        assert set(known) - set(failing) == set(own) - set(only)
    whole = package_files()
    for one in known.values():
        changed = one.apply(whole)
        assert [name for name in whole if changed[name] != whole[name]] == [one.file]


def test_a_break_that_matches_nothing_is_noticed() -> None:
    with pytest.raises(ConfigurationError, match="exactly once"):
        Break("build", "x", "dos2unix.spec", (("no such text", "y"),)).apply(package_files())


def test_a_break_for_another_stage_is_refused_with_those_there_are(repository: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        push_change(repository, "f41", "lunch")
    assert "build, check, compose, smoke, tests" in refused.value.hint


def test_seeding_gives_both_branches_tests_and_checksum(repository: Path, world: KojiWorld, cache: Path) -> None:
    assert seed(world.root, cache, print) == repository
    for branch in ("rawhide", "f41"):
        listed = git("-C", repository, "ls-tree", "-r", "--name-only", branch).split()
        assert {"dos2unix.spec", "sources", "tests/tests.yml", "tests/conversions.sh"} <= set(listed)
        assert git("-C", repository, "show", f"{branch}:sources").startswith(f"SHA512 ({NAME}-{VERSION}.tar.gz) = ")


def test_the_release_comes_from_a_lookaside_where_there_is_no_apt(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(tmp_path / "root" / "lookaside", NAME, ensure_tarball(cache, print))
    monkeypatch.setenv("PATH", str(tmp_path))
    with DistGitServer(tmp_path / "root", tmp_path) as server:
        fetched = ensure_tarball(tmp_path / "empty", print, f"{server.url}/repo/pkgs")
        assert fetched.read_bytes() == ensure_tarball(cache, print).read_bytes()
        with pytest.raises(InfrastructureError, match="404"):
            ensure_tarball(tmp_path / "other", print, f"{server.url}/nowhere")


def test_the_package_builds_with_its_upstream_test_suite(world: KojiWorld, repository: Path, tmp_path: Path) -> None:
    (rpm,) = built(world, repository, "", tmp_path)
    release = git("-C", repository, "rev-list", "--count", "f41")
    assert rpm.nevra == Nevra(
        NAME, 0, VERSION, f"{release}.fc41", "x86_64", f"{NAME}-{VERSION}-{release}.fc41.src.rpm"
    )
    assert "All tests successful." in (tmp_path / "build.x86_64.log").read_text()


@pytest.mark.parametrize(("stage", "script"), [("build", "(%build)"), ("check", "(%check)")])
def test_a_break_of_the_build_fails_in_its_own_script(
    world: KojiWorld, repository: Path, tmp_path: Path, stage: str, script: str
) -> None:
    task_id = submitted(world, repository, stage)
    with pytest.raises(PackageError) as failed:
        world.client().wait(task_id, PATIENCE, print)
    assert script in failed.value.evidence
    world.client().download(task_id, tmp_path, "x86_64")
    seen = unit_tests((tmp_path / "build.x86_64.log").read_text().splitlines(), built=False)
    assert seen.status == ("failed" if stage == "check" else "unknown")


@pytest.mark.parametrize("stage", ["ostree", "integration"])
def test_a_break_of_a_tree_builds_and_can_be_installed_in_an_image(
    world: KojiWorld, repository: Path, cache: Path, tmp_path: Path, stage: str
) -> None:
    nevras = [rpm.nevra for rpm in built(world, repository, stage, tmp_path / "room")]
    image = OfflineInstaller().compose(ensure_base(cache, print), tmp_path / "room", nevras, tmp_path / "image.qcow2")
    assert set(nevras) <= set(image.installed)


def test_the_compose_break_builds_and_cannot_be_installed(
    world: KojiWorld, repository: Path, cache: Path, tmp_path: Path
) -> None:
    rpms = built(world, repository, "compose", tmp_path / "room")
    with pytest.raises(PackageError, match=r"nothing provides libnosuchconv >= 2\.0"):
        OfflineInstaller().compose(
            ensure_base(cache, print), tmp_path / "room", [rpm.nevra for rpm in rpms], tmp_path / "image.qcow2"
        )


@pytest.mark.guest
def test_the_smoke_and_tests_breaks_show_in_a_guest(
    world: KojiWorld, repository: Path, cache: Path, tmp_path: Path
) -> None:
    base = ensure_base(cache, print)
    nevras = [rpm.nevra for rpm in built(world, repository, "smoke", tmp_path / "room")]
    image = OfflineInstaller().compose(base, tmp_path / "room", nevras, tmp_path / "image.qcow2")
    with LibvirtGuests(tmp_path / "guests").boot(image.path, base.ssh_key, tmp_path / "work", 120) as guest:
        installed = guest.run(INSTALLED_COMMAND, 60).stdout.splitlines()
        report = judge(nevras, installed, guest.run(KERNEL_COMMAND, 60).stdout)
        whole = package_files()
        logs = []
        for files in (whole, breaks()["tests"].apply(whole)):
            script = base64.b64encode(files["tests/conversions.sh"].encode()).decode()
            logs.append(guest.run(f"echo {script} | base64 -d | bash -s /tmp/t; cat /tmp/t/test.log", 60).stdout)
    assert report.missing == tuple(nevras)
    passed, failed = ([line for line in log.splitlines() if "unix-becomes-dos" in line][-1] for log in logs)
    assert (passed, failed) == ("PASS unix-becomes-dos", "FAIL unix-becomes-dos")
