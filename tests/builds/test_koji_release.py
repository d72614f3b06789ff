"""A build that is no scratch build is tested as well, also when the hub has cleared its tasks' output away."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import koji
import pytest
from koji_world import KojiWorld, koji_world, spec

from distgate.errors import ConfigurationError, PackageError
from distgate.rpm.nevra import read_rpms

PATIENCE = 120.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("koji"), cache) as running:
        yield running


def released(world: KojiWorld, source: str) -> int:
    """The task of a build that a packager asked for."""
    session = koji.ClientSession(world.profile.server, {"user": "koji", "password": "koji"})
    session.login()
    task = int(session.build(source, "f41", {}))
    world.client().wait(task, PATIENCE, print)
    return task


def clear_away(world: KojiWorld) -> None:
    """What hubs do with the output of old tasks."""
    shutil.rmtree(world.root / "koji/kojifiles/work/tasks")


def test_a_packagers_build_is_fetched_from_its_tasks_and_later_from_where_it_stays(
    world: KojiWorld, tmp_path: Path
) -> None:
    task = released(world, world.commit(spec()))
    at_once = world.client().download(task, tmp_path / "at once", "x86_64")
    clear_away(world)
    later = world.client().download(task, tmp_path / "later", "x86_64")
    names = {path.name for path in later}
    assert {"tiny-1.2-3.fc41.noarch.rpm", "tiny-1.2-3.fc41.src.rpm", "build.noarch.log"} <= names
    assert {path.name for path in at_once} >= names
    rpms = [path for path in later if path.suffix == ".rpm"]
    assert {str(one.nevra) for one in read_rpms(rpms)} == {"tiny-1.2-3.fc41.noarch", "tiny-1.2-3.fc41.src"}
    assert all(path.read_bytes() == (tmp_path / "at once" / path.name).read_bytes() for path in later)


def test_a_scratch_build_that_was_cleared_away_is_nobodys_fault_but_the_callers(
    world: KojiWorld, tmp_path: Path
) -> None:
    client = world.client()
    task = client.submit(world.commit(spec()), "f41", "x86_64")
    client.wait(task, PATIENCE, print)
    clear_away(world)
    with pytest.raises(ConfigurationError, match=f"has removed what Koji task {task} built") as caught:
        client.download(task, tmp_path, "x86_64")
    assert "build it anew" in caught.value.hint


def test_the_same_build_twice_is_refused_by_the_hub(world: KojiWorld) -> None:
    source = world.commit(spec(release="9%{?dist}"))
    released(world, source)
    with pytest.raises(PackageError, match=r"Build already exists \(tiny-1.2-9.fc41\)"):
        released(world, source)
