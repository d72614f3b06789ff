"""The commands about package lists, with a real dnf over small packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.process import Completed, run

TREE = """\
packages: [shell]
recommends: false
repos: [small]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packages = (SmallRpm("shell", "Requires: text"), SmallRpm("text"), SmallRpm("other"))
    return make_repository(tmp_path_factory.mktemp("small"), packages)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    directory = tmp_path / "lists"
    directory.mkdir()
    (directory / "f44.txt").write_text("dos2unix\n")
    (tmp_path / "tree.yaml").write_text(TREE)
    return directory


def distgate(lists: Path | None, *words: str) -> Completed:
    own = f"from distgate.cli.main import main; main({list(words)!r})"
    env = {"DISTGATE_PACKAGE_LISTS": str(lists)} if lists else {}
    return run([sys.executable, "-c", own], timeout=120, env=env, allowed=range(256), split_errors=True)


def refresh(lists: Path, repository: Path, *words: str) -> Completed:
    tree = ("--treefile", str(lists.parent / "tree.yaml"), "--repository", f"small={repository}")
    return distgate(lists, "package-lists", "refresh", *words, *tree)


def test_a_list_is_refreshed_from_a_treefile_and_shown_with_its_origin(lists: Path, repository: Path) -> None:
    told = refresh(lists, repository, "f44", "--json")
    assert told.returncode == 0, told.errors
    (one,) = json.loads(told.output)["lists"]
    assert (one["branch"], one["patterns"]) == ("f44", 3)
    assert one["refreshed"].endswith("tree.yaml: 2 packages of small, made of 2 sources")
    lines = (lists / "f44.txt").read_text().splitlines()
    assert (lines[0], lines[-3:-1]) == ("dos2unix", ["shell", "text"])
    (lists / "f45.txt").write_text("bash\n")
    shown = json.loads(distgate(lists, "package-lists", "list", "--json").output)["lists"]
    assert [(one["branch"], bool(one["refreshed"])) for one in shown] == [("f44", True), ("f45", False)]
    assert "written by hand" in distgate(lists, "package-lists", "list").output


def test_by_default_those_are_refreshed_that_were_before(lists: Path, repository: Path) -> None:
    refused = refresh(lists, repository)
    assert (refused.returncode, "which branches?" in refused.errors) == (2, True)
    refresh(lists, repository, "f43")
    again = refresh(lists, repository, "--json")
    assert [one["branch"] for one in json.loads(again.output)["lists"]] == ["f43"]
    assert (lists / "f44.txt").read_text() == "dos2unix\n"


# words, a part of what standard error says
MISTAKES: list[tuple[list[str], str]] = [
    (["refresh", "f99"], "there is no treefile for branch f99"),
    (["refresh", "f44", "--treefile", "x.yaml", "--repository", "nowhere"], "'nowhere' is no repository"),
    (["refresh", "f44", "--treefile", "/nonexistent.yaml", "--repository", "a=b"], "/nonexistent.yaml"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[case[1] for case in MISTAKES])
def test_a_users_mistake_is_a_sentence_and_leaves_the_list(lists: Path, words: list[str], said: str) -> None:
    told = distgate(lists, "package-lists", *words)
    assert (told.returncode, told.output) == (2, "")
    assert said in told.errors
    assert "Traceback" not in told.errors
    assert (lists / "f44.txt").read_text() == "dos2unix\n"


def test_without_a_directory_of_lists_that_is_said() -> None:
    told = distgate(None, "package-lists", "list")
    assert told.returncode == 2
    assert "DISTGATE_PACKAGE_LISTS" in told.errors
