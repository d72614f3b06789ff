"""The latest commits of many repositories, asked for with real git over http and over files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.builds.heads import CommitFactsCache, heads
from lab.dist_git.repository import create_branch, create_repository, push, repository_path
from lab.dist_git.server import DistGitServer

BRANCHES = ("rawhide", "main", "master")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 packages; the first two have tests, one calls its branch main, and one has f41 alone."""
    root = tmp_path_factory.mktemp("dist-git")
    tested = create_repository(root, "package-000")
    push(tested, "rawhide", {"x.spec": "Name: x\n", "tests/tests.yml": "- hosts: all\n  tags: [classic]\n"}, "Tests")
    plain = create_repository(root, "package-001")
    push(plain, "rawhide", {"x.spec": "Name: x\n"}, "Plain")
    for number in range(2, 200):
        copied = shutil.copytree(plain, repository_path(root, f"package-{number:03}"))
        if number == 2:
            create_branch(copied, "main", "rawhide")
            (copied / "refs/heads/rawhide").unlink()
        if number == 3:
            create_branch(copied, "f41", "rawhide")
            (copied / "refs/heads/rawhide").unlink()
    return root


@pytest.fixture
def server(root: Path, tmp_path: Path) -> Iterator[DistGitServer]:
    with DistGitServer(root, tmp_path) as running:
        yield running


def test_the_heads_of_200_repositories_are_known_at_once(root: Path) -> None:
    names = [f"package-{number:03}" for number in range(200)]
    started = time.monotonic()
    found = heads({name: repository_path(root, name).as_uri() for name in names}, BRANCHES)
    print(f"200 heads in {time.monotonic() - started:.1f} s")
    assert list(found) == names
    assert sum(bool(one.rev) for one in found.values()) == 199
    assert (found["package-002"].branch, found["package-004"].branch) == ("main", "rawhide")
    assert found["package-003"].problem == "it has no branch rawhide or main or master"


def test_a_head_is_read_over_http_and_a_missing_repository_is_a_problem_of_its_own(server: DistGitServer) -> None:
    addresses = {name: f"{server.url}/rpms/{name}.git" for name in ("package-000", "nowhere")}
    found = heads(addresses, BRANCHES)
    assert len(found["package-000"].rev) == 40
    assert found["nowhere"].rev == ""
    assert "cannot be read" in found["nowhere"].problem


def test_what_a_commit_holds_is_asked_once(server: DistGitServer, tmp_path: Path) -> None:
    addresses = {name: f"{server.url}/rpms/{name}.git" for name in ("package-000", "package-001")}
    commits = {name: (addresses[name], one.rev) for name, one in heads(addresses, BRANCHES).items()}
    book = tmp_path / "commits.json"
    facts = CommitFactsCache(book).facts(commits)
    assert {name: one.has_tests for name, one in facts.items()} == {"package-000": True, "package-001": False}
    assert all(abs(one.committed - time.time()) < 3600 for one in facts.values())
    gone = {name: (f"{server.url}/rpms/nowhere.git", rev) for name, (_, rev) in commits.items()}
    assert CommitFactsCache(book).facts(gone) == facts
    assert CommitFactsCache(tmp_path / "other.json").facts(gone) == {}


def test_a_book_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "commits.json").write_text('{"a": 1}')
    assert CommitFactsCache(tmp_path / "commits.json").facts({}) == {}
