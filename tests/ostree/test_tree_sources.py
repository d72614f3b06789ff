"""Which source packages a tree is made of, by a real dnf over small packages."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.ostree.sources import sources_of
from distgate.ostree.treefile import Treefile
from distgate.rpm.transaction import RepositorySource

LIBS = "%description libs\nlibs\n%files libs\n"
LONG = "a-package-whose-name-is-so-long-that-dnf-gives-it-a-line-of-its-own-in-every-table"
PACKAGES = (
    SmallRpm("shell", "Requires: text-libs\nRecommends: colours"),
    SmallRpm("text", "%package libs\nSummary: libs", LIBS),
    SmallRpm("text", "%package libs\nSummary: libs", LIBS, version="2.0"),
    SmallRpm("colours"),
    SmallRpm(LONG, "Epoch: 3"),
    SmallRpm("lonely", "Requires: nobody-has-this"),
    SmallRpm("rival", "Conflicts: shell"),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> RepositorySource:
    return RepositorySource.at("small", make_repository(tmp_path_factory.mktemp("small"), PACKAGES))


def tree(*packages: str, recommends: bool = False, excluded: tuple[str, ...] = ()) -> Treefile:
    return Treefile(Path("small.yaml"), packages, release="1", recommends=recommends, excluded=excluded)


# the treefile, how many packages, their sources
SOLVED: list[tuple[str, Treefile, int, tuple[str, ...]]] = [
    ("a package alone", tree("colours"), 1, ("colours",)),
    ("what it needs, by the name of its source", tree("shell"), 2, ("shell", "text")),
    (
        "what it recommends, where the tree wants that",
        tree("shell", recommends=True),
        3,
        ("colours", "shell", "text"),
    ),
    ("unless it is excluded", tree("shell", recommends=True, excluded=("colours",)), 2, ("shell", "text")),
    ("a long name with an epoch", tree(LONG, "text-libs"), 2, (LONG, "text")),
    ("a pattern", tree("text*"), 2, ("text",)),
]


@pytest.mark.parametrize(
    ("treefile", "packages", "sources"), [case[1:] for case in SOLVED], ids=[case[0] for case in SOLVED]
)
def test_a_tree_is_made_of_what_its_packages_need(
    repository: RepositorySource, treefile: Treefile, packages: int, sources: tuple[str, ...]
) -> None:
    found = sources_of(treefile, [repository])
    assert (found.packages, found.sources) == (packages, sources)


# the treefile, the class of the error, a part of what it says
REFUSED: list[tuple[str, Treefile, type[Exception], str]] = [
    (
        "a package that nobody has",
        tree("shell", "nosuch", "neither"),
        ConfigurationError,
        "no repository has nosuch, n",
    ),
    ("what it needs is nowhere", tree("lonely"), ConfigurationError, "nobody-has-this"),
    ("they exclude each other", tree("shell", "rival"), ConfigurationError, "do not go together"),
    ("it names no packages", tree(), ConfigurationError, "names no packages"),
]


@pytest.mark.parametrize(("treefile", "kind", "words"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_a_tree_that_cannot_be_made_is_refused_with_its_treefile_named(
    repository: RepositorySource, treefile: Treefile, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as refused:
        sources_of(treefile, [repository])
    assert "small.yaml" in str(refused.value)


def test_a_repository_that_is_away_is_infrastructure(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match=r"cannot be solved for"):
        sources_of(tree("shell"), [RepositorySource.at("gone", tmp_path)])
