"""The repository of tested packages holds the newest build of each, and is replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.errors import InfrastructureError
from distgate.ostree.tested_packages import TestedPackages, source_name
from distgate.rpm.nevra import Nevra, read_rpms

TWO = "%package -n {0}\nSummary: x\n%description -n {0}\nx\n%files -n {0}\n"
#: Builds that passed one after another, and what the repository holds after each.
BUILDS = (
    (SmallRpm("tool", version="2.0"), "tool-2.0-3"),
    (SmallRpm("extra"), "extra-1.0-3 tool-2.0-3"),
    (SmallRpm("tool", version="2.0", release="10"), "extra-1.0-3 tool-2.0-10"),
    (SmallRpm("tool", version="1.0"), "extra-1.0-3 tool-2.0-10"),
    (SmallRpm("tool", version="3.0", files=TWO.format("tool-libs")), "extra-1.0-3 tool-3.0-3 tool-libs-3.0-3"),
    (SmallRpm("tool", version="4.0"), "extra-1.0-3 tool-4.0-3"),
)


def test_the_newest_build_of_each_source_stays(tmp_path: Path) -> None:
    tested = TestedPackages(tmp_path / "packages")
    tested.create()
    assert tested.exists
    assert tested.rpms() == []
    for number, (build, held) in enumerate(BUILDS):
        room = tmp_path / str(number)
        room.mkdir()
        repository = make_repository(room, [build])
        built = [rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))]
        after = tested.add(repository, built)
        assert " ".join(sorted(package.nvr for package in after)) == held
        assert " ".join(sorted(rpm.nevra.nvr for rpm in tested.rpms())) == held
    assert sorted(path.name for path in tmp_path.glob(".generation-*")) == [os.readlink(tested.link)]


def test_what_is_not_there_cannot_be_added(tmp_path: Path) -> None:
    tested = TestedPackages(tmp_path / "packages")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InfrastructureError, match="empty has no tool-1-1"):
        tested.add(tmp_path / "empty", [Nevra("tool", 0, "1", "1", "noarch")])
    assert not tested.exists


SOURCES = (
    (Nevra("systemd-libs", 0, "256", "1", "x86_64", "systemd-256-1.src.rpm"), "systemd"),
    (Nevra("a-b", 0, "1", "2", "x86_64", "a-b-1-2.src.rpm"), "a-b"),
    (Nevra("own", 0, "1", "1", "x86_64"), "own"),
)


@pytest.mark.parametrize(("package", "name"), SOURCES)
def test_a_package_is_known_by_its_source(package: Nevra, name: str) -> None:
    assert source_name(package) == name
