"""Trees of a few small packages: no kernel, no shell, a second each.

Run as ``python tiny_trees.py DIRECTORY PACKAGES VERSION WORDS [HOLDER]`` it composes one for HOLDER, and is killed as
soon as a line of the compose's progress begins with WORDS.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from small_rpms import SmallRpm, make_repository

from distgate.drivers.base import ComposedTree, Progress, TreeComposer
from distgate.drivers.branch_trees import BranchTrees
from distgate.drivers.ostree_repo_files import repositories_of
from distgate.drivers.tree_dnf import DnfTreeComposer
from distgate.drivers.tree_rpm_ostree import RpmOstreeComposer
from distgate.packages import Nevra, read_rpms
from distgate.process import run
from distgate.treefile import Treefile, read_treefile
from lab.tree_rpm_ostree import COMMAND

REF = "fedora/f41/x86_64/atomic-host"
TREEFILE = "container: true\nreleasever: 41\nrepos: [distribution]\nrecommends: false\npackages: [base, tool]\n"

#: What the distribution has, and the changes that are tested.
DISTRIBUTION = (SmallRpm("base"), SmallRpm("tool"))
CHANGES = (
    SmallRpm("tool", version="2.0"),
    SmallRpm("tool", version="3.0"),
    SmallRpm("tool", version="4.0"),
    SmallRpm("tool", version="0.5"),
    SmallRpm("extra"),
    SmallRpm("needy", extra="Requires: libnosuch.so.7"),
    SmallRpm("angry", scriptlets='%pre -p <lua>\nerror("not like this")'),
)


@dataclass(frozen=True)
class Packages:
    """Where the small packages are: the distribution's, and a repository for each change."""

    top: Path

    @classmethod
    def built(cls, top: Path) -> Packages:
        """All of them, built below ``top``."""
        (top / "distribution").mkdir()
        make_repository(top / "distribution", DISTRIBUTION)
        for change in CHANGES:
            place = top / f"{change.name}-{change.version}"
            place.mkdir()
            make_repository(place, [change])
        return cls(top)

    def branch(self, directory: Path, **options: Any) -> tuple[BranchTrees, ComposedTree]:
        """A copy of a branch with one accepted tree, that of tool-2.0, and that tree."""
        seed = self.top / "f41"
        if not (self.top / "f41.tree").exists():
            tree = composed(trees_in(seed, self), self, "tool-2.0")
            (self.top / "f41.tree").write_bytes(pickle.dumps(tree))
        shutil.copytree(seed, directory, symlinks=True)
        return trees_in(directory, self, **options), pickle.loads((self.top / "f41.tree").read_bytes())

    @property
    def distribution(self) -> Path:
        return self.top / "distribution/RPMS"

    def change(self, name: str) -> tuple[Path, list[Nevra]]:
        """The repository of a change such as tool-2.0, and what is in it."""
        place = self.top / name / "RPMS"
        return place, [rpm.nevra for rpm in read_rpms(sorted(place.rglob("*.rpm")))]


def treefile_in(place: Path, packages: Packages, text: str = TREEFILE) -> Treefile:
    """The treefile ``text``, with the .repo file that it needs beside it."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "tree.yaml").write_text(text)
    (place / "tiny.repo").write_text(f"[distribution]\nname=Tiny\nbaseurl={packages.distribution.as_uri()}\n")
    return read_treefile(place / "tree.yaml")


def trees_in(
    directory: Path, packages: Packages, driver: str = "dnf", text: str = TREEFILE, **options: Any
) -> BranchTrees:
    """The tiny trees of a branch, below ``directory``."""
    treefile = treefile_in(directory.with_name(f"{directory.name}-treefile"), packages, text)
    sources = repositories_of(treefile)
    composer: TreeComposer = DnfTreeComposer(treefile, sources)
    if driver == "rpm-ostree":
        composer = RpmOstreeComposer(treefile, sources, directory / "cache", command=COMMAND)
    return replace(BranchTrees(directory, REF, treefile, composer, holder="a test", patience=60), **options)


def composed(
    trees: BranchTrees,
    packages: Packages,
    change: str,
    progress: Progress = lambda _line: None,
    accepted: bool = True,
) -> ComposedTree:
    """The tree of a change, accepted unless told otherwise."""
    repository, under_test = packages.change(change)
    tree = trees.compose(repository, under_test, progress)
    if accepted:
        trees.accept(tree, repository, under_test)
    return tree


def installed(tree: ComposedTree) -> list[str]:
    """The names and versions of a tree's packages."""
    return [f"{package.name}-{package.version}" for package in tree.installed]


def summary_of(repository: Path) -> dict[str, str]:
    """What a client reads in the summary: the refs and their commits."""
    lines = run(["ostree", "summary", "--view", f"--repo={repository}"], timeout=60).output.splitlines()
    refs = [number for number, line in enumerate(lines) if line.startswith("* ")]
    return {lines[number][2:]: lines[number + 2].strip() for number in refs}


def main() -> None:
    """Compose, and die of it."""
    directory, packages, change, words, *given = sys.argv[1:]
    options = {"holder": given[0]} if given else {}

    def listen(line: str) -> None:
        print(line, flush=True)
        if line.startswith(words):
            os.kill(os.getpid(), signal.SIGKILL)

    tiny = Packages(Path(packages))
    composed(trees_in(Path(directory), tiny, **options), tiny, change, listen, False)


if __name__ == "__main__":
    main()
