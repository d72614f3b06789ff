"""The block OSTree repository: which treefile, repositories, composer and places a branch has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blocks import OSTreeRepo
from distgate.errors import ConfigurationError
from distgate.ostree.base import TreeRequest
from distgate.ostree.compose_dnf import DnfTreeComposer
from distgate.ostree.compose_rpm_ostree import RpmOstreeComposer
from distgate.ostree.repo_files import read_repo_file, repo_text, repositories_of
from distgate.ostree.repository import SigningKey
from distgate.ostree.treefile import Treefile, read_treefile
from distgate.rpm.nevra import Nevra
from distgate.rpm.transaction import RepositorySource

TREE = "packages: [bash]\nrepos: [fedora]\n"


def block(tmp_path: Path, **options: Any) -> OSTreeRepo:
    (tmp_path / "own.yaml").write_text(TREE)
    options.setdefault("treefiles", {"*": str(tmp_path / "own.yaml")})
    options.setdefault("repositories", {"fedora": "http://mirror/fedora/"})
    return OSTreeRepo(root=str(tmp_path / "trees"), url="http://here:8080/", **options)


def test_a_branch_has_its_places_and_addresses(tmp_path: Path) -> None:
    site = block(tmp_path, images_kept=5, keep_days=3)
    trees = site.trees("f41", "run 7")
    assert (trees.directory, trees.ref) == (tmp_path / "trees/f41", "fedora/f41/x86_64/atomic-host")
    assert (trees.holder, trees.keep_days, trees.signing) == ("run 7", 3, None)
    assert site.compose_url("f41") == "http://here:8080/f41/ostree"
    images = site.images("f41")
    assert (images.directory, images.keep) == (tmp_path / "trees/f41/images", 5)
    assert images.url == "http://here:8080/f41/images"


def test_our_treefiles_need_no_configuration(tmp_path: Path) -> None:
    treefile, sources = OSTreeRepo(root=str(tmp_path)).recipe("f44")
    assert treefile.ref == "fedora/f44/x86_64/atomic-host"
    assert [source.name for source in sources] == ["fedora-44", "fedora-44-updates"]
    assert all(source.metalink.startswith("https://mirrors.fedoraproject.org/") for source in sources)


def test_a_branch_of_its_own_comes_before_all_others(tmp_path: Path) -> None:
    (tmp_path / "f42.yaml").write_text(TREE + "ref: own/ref\n")
    files = {"*": str(tmp_path / "own.yaml"), "f42": str(tmp_path / "f42.yaml")}
    site = block(tmp_path, treefiles=files)
    assert (site.trees("f41").ref, site.trees("f42").ref) == ("fedora/f41/x86_64/atomic-host", "own/ref")


DRIVERS: tuple[tuple[str, list[str], type[object]], ...] = (
    ("dnf", ["rpm-ostree"], DnfTreeComposer),
    ("rpm-ostree", ["rpm-ostree"], RpmOstreeComposer),
    ("auto", ["sh"], RpmOstreeComposer),
    ("auto", ["no-such-rpm-ostree"], DnfTreeComposer),
)


@pytest.mark.parametrize(("driver", "command", "kind"), DRIVERS)
def test_auto_takes_rpm_ostree_where_it_is_installed(
    tmp_path: Path, driver: Any, command: list[str], kind: type[object]
) -> None:
    assert isinstance(block(tmp_path, driver=driver, rpm_ostree=command).trees("f41").composer, kind)


KEYS: tuple[tuple[dict[str, str], SigningKey | None], ...] = (
    ({}, None),
    ({"signing_key": "ABCD"}, SigningKey("gpg", "ABCD")),
    ({"signing_key": "ABCD", "gpg_home": "/keys"}, SigningKey("gpg", "ABCD", Path("/keys"))),
    ({"signing_key": "/k", "signing_kind": "ed25519"}, SigningKey("ed25519", "/k")),
)


@pytest.mark.parametrize(("options", "key"), KEYS)
def test_a_configured_key_signs(tmp_path: Path, options: dict[str, Any], key: SigningKey | None) -> None:
    assert block(tmp_path, **options).trees("f41").signing == key


def test_a_branch_without_a_treefile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no treefile for branch f27"):
        OSTreeRepo(root=str(tmp_path)).trees("f27")


REPO = """[one]
name=One
baseurl=http://one/$basearch/
priority=5
cost=7
excludepkgs=a, b c

[two]
metalink=https://two/?repo=%release
"""


def test_repo_files_are_read_and_written_alike(tmp_path: Path) -> None:
    (tmp_path / "a.repo").write_text(REPO)
    one = RepositorySource("one", "http://one/$basearch/", priority=5, cost=7, excluded=("a", "b", "c"))
    two = RepositorySource("two", metalink="https://two/?repo=%release")
    assert read_repo_file(tmp_path / "a.repo") == {"one": one, "two": two}
    (tmp_path / "b.repo").write_text(repo_text([one, two]))
    assert read_repo_file(tmp_path / "b.repo") == {"one": one, "two": two}


def test_a_configured_address_comes_before_the_file_beside_the_treefile(tmp_path: Path) -> None:
    (tmp_path / "a.repo").write_text(REPO)
    (tmp_path / "tree.yaml").write_text("packages: [bash]\nrepos: [two, one]\n")
    treefile = read_treefile(tmp_path / "tree.yaml", "41")
    found = repositories_of(treefile, {"one": "mirrorlist+http://other/", "unused": "http://unused/"})
    assert [(source.name, source.metalink or source.mirrorlist) for source in found] == [
        ("two", "https://two/?repo=%release"),
        ("one", "http://other/"),
    ]


BAD: tuple[tuple[str, str, str], ...] = (
    ("no repository of that name", "[two]\nbaseurl=http://two/\n", "no repository is called one"),
    ("no address", "[one]\nname=One\n", "repository one has no address"),
    ("no section", "baseurl=http://one/\n", "is no .repo file"),
    ("a cost that is none", "[one]\nbaseurl=http://one/\ncost=much\n", "is no .repo file"),
    ("a section twice", "[one]\nbaseurl=a\n[one]\nbaseurl=b\n", "is no .repo file"),
)


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_repository_that_cannot_be_found_is_a_matter_of_configuration(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "a.repo").write_text(text)
    with pytest.raises(ConfigurationError, match=words):
        repositories_of(Treefile(tmp_path / "tree.yaml", ("bash",), repositories=("one",)))


def test_rpm_ostree_gets_a_treefile_laid_over_ours_with_the_repositories_beside_it(tmp_path: Path) -> None:
    (tmp_path / "tree.yaml").write_text("packages: [bash]\nrepos: [one]\n")
    treefile = read_treefile(tmp_path / "tree.yaml", "41")
    composer = RpmOstreeComposer(treefile, (RepositorySource.at("one", "http://one/"),), tmp_path / "cache")
    request = TreeRequest(
        build=tmp_path / "build",
        ref="r",
        version="41.2",
        parent=None,
        under_test=tmp_path / "built",
        packages=(Nevra("tool", 1, "2.0", "3.fc41", "x86_64"),),
        tested=tmp_path / "tested",
        also=("extra",),
    )
    definition = composer.write_definition(request, tmp_path)
    assert json.loads(definition.read_text()) == {
        "include": str(tmp_path / "tree.yaml"),
        "ref": "r",
        "releasever": "41",
        "repos": ["distgate-under-test", "distgate-tested"],
        "packages": ["extra", "'tool-1:2.0-3.fc41.x86_64'"],
    }
    merged = read_treefile(definition)
    assert merged.packages == ("bash", "extra", "tool-1:2.0-3.fc41.x86_64")
    sources = {source.name: (source.priority, source.cost) for source in repositories_of(merged)}
    assert sources == {"one": (99, 1000), "distgate-under-test": (10, 1000), "distgate-tested": (99, 500)}
