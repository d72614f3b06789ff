"""What a run of Atomic Host does between its package and its tests, on trees of small packages: run by
test_branch_turns, with ``build ROOM`` first, then a process for each run."""

import sys
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from tiny_trees import Packages, treefile_in

from blocks import OSTreeRepo
from distgate.changes.change import Change
from distgate.waiting import wait_for
from tasks.build import BuiltPackage
from tasks.claim import claim_change
from tasks.run.stage import end_of_run
from tasks.tree import branch_held, candidate, compose_tree

SITE = "turns"
RUN_HOOKS = [end_of_run]


@flow(name="turns", on_completion=RUN_HOOKS, on_failure=RUN_HOOKS, on_cancellation=RUN_HOOKS, on_crashed=RUN_HOOKS)
def turns(room: Path, name: str, number: int) -> State[Any]:
    """One run: it is on trial until somebody writes ``NAME.passed`` or ``NAME.failed``."""
    change = Change(namespace="rpms", repo="tiny", rev=f"{number:040x}", branch="f41", username="jane")
    job = claim_change(change, SITE, False, pipeline="atomic")
    assert job is not None
    repository, packages = Packages(room / "packages").change(name)
    built = BuiltPackage(number, f"{name}-3", tuple(packages), repository)
    with branch_held(job):
        tree = compose_tree(job, built)
        with candidate(job, built, tree) as trial:
            (room / f"{name}.tree").write_text(f"{tree.rev} {tree.parent or ''}")
            words = (room / f"{name}.passed", room / f"{name}.failed")
            wait_for("the end of the tests", lambda: any(word.exists() for word in words), 300)
            trial.passed = words[0].exists()
    return Completed()


def build(room: Path) -> None:
    (room / "packages").mkdir()
    packages = Packages.built(room / "packages")
    treefile = treefile_in(room / "treefile", packages)
    OSTreeRepo(
        root=str(room / "trees"), url="http://trees.test", driver="dnf", treefiles={"*": str(treefile.path)}
    ).save(SITE, overwrite=True)


if __name__ == "__main__":
    _, word, place, *rest = sys.argv
    if word == "build":
        build(Path(place))
    else:
        turns(Path(place), word, int(rest[0]))
