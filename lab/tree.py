"""The lab's Atomic Host: what kickstarts/trees/lab.yaml says, from the lab's repository."""

from __future__ import annotations

from pathlib import Path

from distgate.drivers.base import Progress
from distgate.drivers.branch_trees import BranchTrees
from distgate.drivers.transaction import RepositorySource
from distgate.drivers.tree_dnf import DnfTreeComposer
from distgate.treefile import BASEARCH, HOME, read_treefile, release_of
from lab.rpm_repository import ensure_repository

TREEFILE = HOME / "lab.yaml"


def lab_trees(cache: Path, root: Path, branch: str = "f41", progress: Progress = print) -> BranchTrees:
    """The trees of a branch of the lab below ``root/branch``, ready to compose; raises as ensure_repository."""
    repository = ensure_repository(cache, progress)
    treefile = read_treefile(TREEFILE, release_of(branch))
    return BranchTrees(
        directory=root / branch,
        ref=f"fedora/{branch}/{BASEARCH}/atomic-host",
        treefile=treefile,
        composer=DnfTreeComposer(treefile, (RepositorySource.at("lab", repository.path),)),
    )
