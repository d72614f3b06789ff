"""The lab's Atomic Host: what kickstarts/trees/lab.yaml says, from the lab's repository."""

from __future__ import annotations

import inspect
from pathlib import Path

from distgate.ostree import branch as branch_trees
from distgate.ostree import branch_directory, compose_dnf, root_to_tree, tested_packages
from distgate.ostree import repository as ostree_repository
from distgate.ostree.branch import BranchTrees
from distgate.ostree.compose_dnf import DnfTreeComposer
from distgate.ostree.treefile import BASEARCH, HOME, read_treefile, release_of
from distgate.process import run
from distgate.rpm.repository import make_repository
from distgate.rpm.transaction import RepositorySource
from distgate.steps import Progress
from lab.distribution.cache import ensure_entry, identity_of
from lab.distribution.rpm_repository import Repository, ensure_repository

TREEFILE = HOME / "lab.yaml"
_INCLUDED = (HOME / "include/lab-boot.yaml",)


def lab_trees(cache: Path, root: Path, branch: str = "f41", progress: Progress = print) -> BranchTrees:
    """The trees of a branch of the lab below ``root/branch``, ready to compose; raises as ensure_repository."""
    return _trees(ensure_repository(cache, progress), root, branch)


def begun_lab_trees(cache: Path, root: Path, branch: str = "f41", progress: Progress = print) -> BranchTrees:
    """As ``lab_trees``, with an accepted tree of the lab's packages alone at the head.

    That tree is made in ``cache`` on the first call (half a minute beyond ensure_repository), and comes from there
    until what makes it changes.
    """
    repository = ensure_repository(cache, progress)
    begun = ensure_entry(
        cache.resolve(), "trees", _identity(repository, branch), lambda into: _begin(repository, into, branch)
    )
    if not (root / branch).exists():
        root.mkdir(parents=True, exist_ok=True)
        # Links, because objects never change, where they are on one file system.
        linked = run(["cp", "-al", begun / branch, root / branch], timeout=300, allowed=range(256))
        if linked.returncode:
            run(["cp", "-a", "--remove-destination", begun / branch, root], timeout=600)
        (root / branch / "lock").unlink(missing_ok=True)
    return _trees(repository, root, branch)


def _trees(repository: Repository, root: Path, branch: str) -> BranchTrees:
    treefile = read_treefile(TREEFILE, release_of(branch))
    return BranchTrees(
        directory=root / branch,
        ref=f"fedora/{branch}/{BASEARCH}/atomic-host",
        treefile=treefile,
        composer=DnfTreeComposer(treefile, (RepositorySource.at("lab", repository.path),)),
    )


def _identity(repository: Repository, branch: str) -> str:
    modules = (branch_directory, branch_trees, tested_packages, ostree_repository, compose_dnf, root_to_tree)
    texts = [path.read_text() for path in (TREEFILE, *_INCLUDED)]
    return identity_of(repository.identity, branch, *texts, *(inspect.getsource(module) for module in modules))


def _begin(repository: Repository, into: Path, branch: str) -> None:
    change = into / "no-change"
    change.mkdir()
    make_repository(change)
    trees = _trees(repository, into, branch)
    trees.accept(trees.compose(change, ()), change, ())
