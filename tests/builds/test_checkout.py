"""A checkout holds exactly the files of one commit, and runs nothing of the repository's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.builds.checkout import CommitCount, checkout, commit_count
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from lab.dist_git.repository import create_repository, git, push
from lab.dist_git.server import DistGitServer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dist-git")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[DistGitServer]:
    (root / "artifacts").mkdir()
    with DistGitServer(root, root / "artifacts") as running:
        yield running


@pytest.fixture(scope="module")
def revs(root: Path) -> list[str]:
    repository = create_repository(root, "tiny")
    first = push(repository, "rawhide", {"tiny.spec": "1", "tests/tests.yml": "---"}, "One")
    return [first, push(repository, "rawhide", {"tiny.spec": "2", "tests/tests.yml": None}, "Two")]


def files(directory: Path) -> dict[str, str]:
    paths = [path for path in directory.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {path.relative_to(directory).as_posix(): path.read_text() for path in paths}


def test_each_commit_is_checked_out_as_it_was(server: DistGitServer, revs: list[str], tmp_path: Path) -> None:
    url = f"{server.url}/rpms/tiny.git"
    assert files(checkout(url, revs[0], tmp_path / "1")) == {"tiny.spec": "1", "tests/tests.yml": "---"}
    assert files(checkout(url, revs[1], tmp_path / "2")) == {"tiny.spec": "2"}
    assert git("rev-parse", "HEAD", cwd=tmp_path / "2") == revs[1]


def test_a_repository_on_this_host_will_do(root: Path, revs: list[str], tmp_path: Path) -> None:
    assert files(checkout(f"file://{root}/repositories/rpms/tiny.git", revs[0], tmp_path / "x"))


def test_no_hook_and_no_filter_runs(
    server: DistGitServer, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / "planted"
    home = tmp_path / "home"
    hooks = home / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {planted}\n")
    (hooks / "post-checkout").chmod(0o755)
    settings = f'[core]\nhooksPath = {hooks}\n[filter "evil"]\nsmudge = touch {planted}; cat\n'
    (home / ".gitconfig").write_text(settings)
    monkeypatch.setenv("HOME", str(home))
    rev = push(create_repository(root, "evil"), "rawhide", {".gitattributes": "* filter=evil\n", "a": "a"}, "Evil")
    assert checkout(f"{server.url}/rpms/evil.git", rev, tmp_path / "x").is_dir()
    assert not planted.exists()


# address, commit, class of the error, words
REFUSED: list[tuple[str, str, type[DistgateError], str]] = [
    ("{url}/rpms/tiny.git", "rawhide", ConfigurationError, "40 hexadecimal digits"),
    ("{url}/rpms/tiny.git", "--upload-pack=touch x", ConfigurationError, "40 hexadecimal digits"),
    ("{url}/rpms/tiny.git", "A" * 40, ConfigurationError, "40 hexadecimal digits"),
    ("{url}/rpms/tiny.git", "a" * 40 + "\n", ConfigurationError, "40 hexadecimal digits"),
    ("ext::sh -c 'touch planted'", "a" * 40, ConfigurationError, "not the address of a repository"),
    ("git@example.test:rpms/tiny", "a" * 40, ConfigurationError, "not the address of a repository"),
    ("{url}/rpms/tiny.git", "a" * 40, PackageError, "has no commit a{40}"),
    ("{url}/rpms/nosuch.git", "a" * 40, InfrastructureError, "cannot fetch"),
    ("http://127.0.0.1:9/rpms/tiny.git", "a" * 40, InfrastructureError, "cannot fetch"),
]


@pytest.mark.parametrize(("url", "rev", "kind", "words"), REFUSED)
def test_what_cannot_be_checked_out_leaves_nothing(
    server: DistGitServer, revs: list[str], tmp_path: Path, url: str, rev: str, kind: type[DistgateError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        checkout(url.replace("{url}", server.url), rev, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_repository_that_is_too_large_is_the_packages_fault(
    server: DistGitServer, root: Path, tmp_path: Path
) -> None:
    noise = bytes(time.time_ns() * number % 251 for number in range(1, 300_000))
    rev = push(create_repository(root, "large"), "rawhide", {"blob": noise}, "Large")
    with pytest.raises(PackageError, match="larger than 0 MiB"):
        checkout(f"{server.url}/rpms/large.git", rev, tmp_path / "x", size_limit=200_000)
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def grown(root: Path) -> list[str]:
    """Commits of one package: two of version 1, a merge of a branch with two more, then two of version 2."""
    repository = create_repository(root, "grown")
    revs = [push(repository, "rawhide", {"grown.spec": "Version: 1\n"}, "Import")]
    revs.append(push(repository, "rawhide", {"a.patch": "x"}, "A patch"))
    push(repository, "side", {"b.patch": "x"}, "One", start="rawhide")
    push(repository, "side", {"c.patch": "x"}, "Two")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.test"]
    merged = git(
        "-C", repository, *identity, "commit-tree", "-p", "rawhide", "-p", "side", "-m", "Merge", "side^{tree}"
    )
    git("-C", repository, "update-ref", "refs/heads/rawhide", merged)
    revs.append(merged)
    revs.append(push(repository, "rawhide", {"grown.spec": "# new\nVersion: 2\n"}, "Update"))
    return [*revs, push(repository, "rawhide", {"grown.spec": "# newer\nVersion: 2\n", "c.patch": None}, "Tidy")]


@pytest.mark.parametrize("parts", ["true", "false"], ids=["a server of parts", "a server of wholes"])
def test_all_commits_are_counted_and_the_releases_of_one_version(
    server: DistGitServer, root: Path, grown: list[str], parts: str
) -> None:
    git("-C", root / "repositories/rpms/grown.git", "config", "uploadpack.allowFilter", parts)
    found = [commit_count(f"{server.url}/rpms/grown.git", rev, spec="grown.spec") for rev in grown]
    assert found == [CommitCount(1, 1), CommitCount(2, 2), CommitCount(5, 3), CommitCount(6, 1), CommitCount(7, 2)]
    assert commit_count(f"{server.url}/rpms/grown.git", grown[-1]) == CommitCount(7)


@pytest.mark.parametrize(("url", "rev", "kind", "words"), REFUSED)
def test_a_history_that_cannot_be_had_is_told_as_a_checkout_is(
    server: DistGitServer, revs: list[str], tmp_path: Path, url: str, rev: str, kind: type[DistgateError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        commit_count(url.replace("{url}", server.url), rev, scratch=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_directory_in_use_is_left_alone(server: DistGitServer, revs: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(ConfigurationError, match="is not empty"):
        checkout(f"{server.url}/rpms/tiny.git", revs[0], tmp_path)
    assert (tmp_path / "mine").exists()
