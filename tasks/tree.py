"""The compose stage of Atomic Host: an OSTree commit with the package, and the decision whether it stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from blocks import OSTreeRepo
from distgate.ledger.runs import RunFacts
from distgate.ostree.base import ComposedTree
from distgate.pipelines import STAGES
from distgate.rpm.diff import diff_text
from distgate.text import fenced
from tasks.build import BuiltPackage
from tasks.run.job import Job
from tasks.run.live_text import LiveLines
from tasks.run.slots import branch_slot
from tasks.run.stage import ledger, stage

if TYPE_CHECKING:
    from distgate.ostree.branch import BranchTrees

STAGE = STAGES["atomic"]["compose"]


@dataclass
class Candidate:
    """A composed tree while it is tested: it stays only if ``passed`` is set."""

    tree: ComposedTree
    passed: bool = False


@contextmanager
def branch_held(job: Job) -> Iterator[None]:
    """One run at a time composes a tree of the branch and tests it; the others wait here; their state says for what.

    The slot is Prefect's, which a dead holder loses; the branch's repository has a lock of its own beside it.
    """
    with branch_slot(job):
        # Before the stage begins: its first message already has the URL of the tree.
        ledger().record_facts(
            job.run_id, RunFacts(compose_url=OSTreeRepo.of(job.site).compose_url(job.change.branch))
        )
        yield


def trees_of(job: Job) -> BranchTrees:
    """The trees of the run's branch."""
    return OSTreeRepo.of(job.site).trees(job.change.branch, job.holder)


@stage(STAGE)
def compose_tree(job: Job, built: BuiltPackage) -> ComposedTree:
    """Commit the branch's packages with those under test, and publish the commit."""
    with LiveLines(STAGE.live, "How the tree is composed") as live:
        tree = trees_of(job).compose(built.repository, built.packages, live)
        live.end(tree.steps)
    _write_record(job, tree)
    ledger().record_facts(job.run_id, RunFacts(compose_rev=tree.rev))
    get_run_logger().info(
        "%s: %s is %s %s, %d packages, %d of them changed",
        job.change.title,
        tree.ref,
        tree.version,
        tree.rev[:12],
        len(tree.installed),
        len(tree.changes),
    )
    return tree


@contextmanager
def candidate(job: Job, built: BuiltPackage, tree: ComposedTree) -> Iterator[Candidate]:
    """The tree stays, and its package is in all later ones, when the block says that it passed; otherwise the branch
    goes back to the commit before, however the block ends. Neither of them is pruned meanwhile."""
    trial, trees = Candidate(tree), trees_of(job)
    trees.republish(tree)  # a retried run comes back to a tree that was withdrawn when it failed
    with ExitStack() as leases:
        for rev in filter(None, (tree.rev, tree.parent)):
            leases.enter_context(trees.lease(rev, job.holder))
        try:
            yield trial
        finally:
            _settle(job, built, trial)


def _settle(job: Job, built: BuiltPackage, trial: Candidate) -> None:
    trees, tree = trees_of(job), trial.tree
    if trial.passed:
        trees.accept(tree, built.repository, built.packages)
        get_run_logger().info("%s: %s stays the head of %s", job.change.title, tree.rev[:12], tree.ref)
    else:
        trees.withdraw(tree)
        get_run_logger().warning("%s: %s is withdrawn from %s", job.change.title, tree.rev[:12], tree.ref)


def _write_record(job: Job, tree: ComposedTree) -> None:
    stage_dir, text = job.run_dir.stage(STAGE.directory), diff_text(tree.changes)
    (stage_dir / "package-diff.txt").write_text(text)
    record = asdict(tree) | {"installed": [str(nevra) for nevra in tree.installed]}
    (stage_dir / "tree.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    parent = tree.parent[:12] if tree.parent else "nothing"
    create_markdown_artifact(
        fenced(text), key="package-diff", description=f"Packages of {tree.rev[:12]} beside those of {parent}"
    )
