"""What dist-git and the hub say of a run that somebody starts by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from koji_world import KojiWorld, koji_world, spec

from distgate.builds.lookup import SiteLookup
from distgate.changes.retrigger import RunRequest, change_of
from distgate.errors import ConfigurationError
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.dist_git.repository import create_repository, push


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("koji"), cache) as running:
        yield running


@pytest.fixture
def lookup(world: KojiWorld) -> SiteLookup:
    return SiteLookup(lambda namespace, repo: f"{world.dist_git.url}/{namespace}/{repo}.git", world.profile)


def test_a_build_says_its_commit_and_branch(world: KojiWorld, lookup: SiteLookup) -> None:
    client, source = world.client(), world.commit(spec())
    task = client.submit(source, "f41", "x86_64")
    try:
        asked = change_of(RunRequest(koji_task=task), lookup, Settings())
    finally:
        client.cancel(task)
    assert asked.koji_task == task
    assert (asked.change.repo, asked.change.branch) == ("tiny", "f41")
    assert source.endswith(f"#{asked.change.rev}")

    def refused() -> str | None:
        try:
            lookup.source(task)
        except ConfigurationError as error:
            return error.message
        return None

    assert "was cancelled: it has no packages" in wait_for("the cancellation", refused, 30)


def test_a_task_that_does_not_exist_is_told(lookup: SiteLookup) -> None:
    with pytest.raises(ConfigurationError, match=r"Koji task 999999 on .* does not exist"):
        lookup.source(999_999)


def test_the_head_of_a_branch_is_tested_where_no_commit_is_named(world: KojiWorld, lookup: SiteLookup) -> None:
    rev = push(create_repository(world.root, "heady"), "rawhide", {"heady.spec": ""}, "Import")
    assert change_of(RunRequest(repo="heady"), lookup, Settings()).change.rev == rev
    with pytest.raises(ConfigurationError, match="rpms/heady on f99: it has no branch f99"):
        lookup.head("rpms", "heady", "f99")
