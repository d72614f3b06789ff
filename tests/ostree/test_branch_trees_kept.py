"""Whatever happens to a compose, the branch's ref stays on a whole commit; who works or reads is not disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_trees
from small_disk import small_disk
from tiny_trees import REF, Packages, composed, installed, summary_of

from distgate.errors import InfrastructureError
from distgate.ostree.branch_directory import PendingTree
from distgate.ostree.repository import OstreeRepository
from distgate.process import run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root")
PATIENCE = 240.0


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages.built(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


#: The moments at which a compose is killed, by the line that it says then, whether the ref has moved, and what the
#: next tree is called: a version that could be fetched is never another tree's.
KILLED = (
    ("while packages are installed", "install packages ...", False, "41.2"),
    ("before the commit", "commit ...", False, "41.2"),
    ("before it is published", "publish ...", False, "41.2"),
    ("before the static delta", "static delta ...", False, "41.3"),
    ("before the ref moves", "ref ...", False, "41.3"),
    ("between ref and summary", "summary ...", True, "41.3"),
    ("when all is done but the accepting", "summary: ", True, "41.3"),
)


@pytest.mark.parametrize(
    ("words", "moved", "version"), [case[1:] for case in KILLED], ids=[case[0] for case in KILLED]
)
def test_a_killed_compose_leaves_the_ref_on_a_whole_commit_and_the_next_one_cleans_up(
    tmp_path: Path, packages: Packages, words: str, moved: bool, version: str
) -> None:
    trees, good = packages.branch(tmp_path / "f41")
    killed_compose(tmp_path / "f41", packages, words)
    head = trees.head()
    assert (head != good.rev) is moved
    run(["ostree", "fsck", "--quiet", f"--repo={trees.published}", str(head)], timeout=60)

    lines: list[str] = []
    following = composed(trees, packages, "extra-1.0", lines.append)
    assert (following.parent, following.version) == (good.rev, version)
    assert any("was never accepted" in line for line in lines) is (moved or words == "ref ...")
    assert installed(following) == ["base-1.0", "extra-1.0", "tool-2.0"]
    assert summary_of(trees.published) == {REF: following.rev}
    left = {path.name for path in trees.directory.iterdir()}
    assert {name for name in left if name.startswith((".composing", "unf", "unacc"))} == set()
    run(["ostree", "fsck", "--quiet", f"--repo={trees.published}"], timeout=60)


def killed_compose(directory: Path, packages: Packages, words: str) -> None:
    """A compose of tool-3.0 in a process of its own, killed when it says ``words``."""
    killed = subprocess.run(
        [sys.executable, tiny_trees.__file__, directory, packages.top, "tool-3.0", words],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr


def test_a_tree_whose_run_was_killed_is_withdrawn_once_the_run_has_ended_and_nobody_tests_it(
    tmp_path: Path, packages: Packages, pool: ThreadPoolExecutor
) -> None:
    trees, good = packages.branch(tmp_path / "f41")
    assert trees.withdraw_abandoned(lambda _: True) is None, "every tree was accepted"
    killed_compose(tmp_path / "f41", packages, "summary: ")
    left = trees.head()
    assert left not in (None, good.rev)
    asked: list[str] = []
    assert trees.withdraw_abandoned(lambda holder: bool(asked.append(holder))) is None, "it may be retried"
    assert asked == ["a test"]
    with trees.lease(str(left), "a test that goes on"):
        assert trees.withdraw_abandoned(lambda _: True) is None
    on, done = threading.Event(), threading.Event()

    def work() -> None:
        with trees.place.locked():
            on.set()
            assert done.wait(PATIENCE)

    busy = pool.submit(work)
    assert on.wait(PATIENCE)
    assert trees.withdraw_abandoned(lambda _: True) is None, "whoever works here looks after it"
    done.set()
    busy.result(PATIENCE)
    assert trees.head() == left

    assert trees.withdraw_abandoned(lambda _: True) == PendingTree(str(left), good.rev, "a test")
    assert (trees.head(), summary_of(trees.published)) == (good.rev, {REF: good.rev})
    assert trees.withdraw_abandoned(lambda _: True) is None
    assert composed(trees, packages, "extra-1.0").parent == good.rev


def test_a_second_compose_waits_and_says_for_whom(
    tmp_path: Path, packages: Packages, pool: ThreadPoolExecutor
) -> None:
    trees, good = packages.branch(tmp_path / "f41", holder="run 1", patience=PATIENCE)
    on, was_told = threading.Event(), threading.Event()
    lines: list[str] = []

    def first(line: str) -> None:
        if line == "commit ...":
            on.set()
            assert was_told.wait(PATIENCE)

    def second(line: str) -> None:
        lines.append(line)
        if line.startswith("waiting for run 1 (process "):
            was_told.set()

    one = pool.submit(composed, trees, packages, "tool-3.0", first)
    assert on.wait(PATIENCE)
    other = pool.submit(composed, replace(trees, holder="run 2"), packages, "extra-1.0", second)
    assert was_told.wait(PATIENCE)
    assert one.result(PATIENCE).parent == good.rev
    assert other.result(PATIENCE).version == "41.3", "whether the first was accepted before or not"
    assert "who works on the trees of f41" in lines[0]


def test_a_tree_that_is_being_tested_is_waited_for(
    tmp_path: Path, packages: Packages, pool: ThreadPoolExecutor
) -> None:
    trees, _ = packages.branch(tmp_path / "f41", holder="run 1", patience=PATIENCE)
    was_told = threading.Event()
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        was_told.set()

    repository, under_test = packages.change("tool-3.0")
    with ExitStack() as keep:
        tree = trees.compose(repository, under_test, keep=keep)
        other = pool.submit(composed, replace(trees, holder="run 2"), packages, "extra-1.0", listen)
        assert was_told.wait(PATIENCE)
        trees.accept(tree, repository, under_test)
    following = other.result(PATIENCE)
    assert lines[0].startswith("waiting for run 1 (process ")
    assert lines[0].endswith("who tests the tree before")
    assert (following.parent, installed(following)) == (tree.rev, ["base-1.0", "extra-1.0", "tool-3.0"])


def test_a_compose_gives_up_waiting_and_says_for_whom(tmp_path: Path, packages: Packages) -> None:
    trees, good = packages.branch(tmp_path / "f41", holder="run 1")
    with ExitStack() as keep:
        repository, under_test = packages.change("tool-3.0")
        tree = trees.compose(repository, under_test, keep=keep)
        with pytest.raises(InfrastructureError, match="gave up after 1 s waiting for the end of the tests") as late:
            composed(replace(trees, patience=1), packages, "extra-1.0")
        assert "run 1" in late.value.evidence
        assert (trees.head(), tree.parent) == (tree.rev, good.rev)


def test_prune_removes_old_commits_and_keeps_what_is_needed(tmp_path: Path, packages: Packages) -> None:
    trees, first = packages.branch(tmp_path / "f41", keep_days=0)
    second, third = (composed(trees, packages, change) for change in ("tool-3.0", "tool-4.0"))
    rejected = composed(trees, packages, "extra-1.0", accepted=False)
    trees.withdraw(rejected)
    served = OstreeRepository(trees.published)

    assert replace(trees, keep_days=1).prune() == (), "none of them is a day old"
    with trees.lease(first.rev, "an image"):
        assert trees.prune(dry_run=True) == (rejected.rev,)
        assert served.holds(rejected.rev)
        assert trees.prune() == (rejected.rev,), "the head, its parent and a leased commit stay"
        assert {commit.rev for commit in served.commits()} == {first.rev, second.rev, third.rev}
    assert trees.prune() == (first.rev,)
    assert not (trees.directory / "leases" / first.rev).exists()
    assert trees.head() == third.rev
    run(["ostree", "fsck", "--quiet", f"--repo={trees.published}"], timeout=60)
    deltas = run(["ostree", "static-delta", "list", f"--repo={trees.published}"], timeout=60).output
    assert deltas.split() == [f"{second.rev}-{third.rev}"]
    assert composed(trees, packages, "extra-1.0").version == "41.5"


def test_a_commit_that_is_not_there_cannot_be_leased(tmp_path: Path, packages: Packages) -> None:
    trees, _ = packages.branch(tmp_path / "f41")
    with pytest.raises(InfrastructureError, match="has no commit 0000"), trees.lease("0" * 64, "me"):
        pass


def test_an_unaccepted_tree_is_not_pruned(tmp_path: Path, packages: Packages) -> None:
    trees, good = packages.branch(tmp_path / "f41", keep_days=0)
    tree = composed(trees, packages, "tool-3.0", accepted=False)
    assert trees.prune() == ()
    trees.withdraw(tree)
    assert trees.head() == good.rev


@pytest.fixture(name="small_disk")
def disk_of_24_mib(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "size=24m") as mounted:
        yield mounted


FULL = ("install packages ...", "commit ...", "publish ...", "ref ...")


@pytest.mark.parametrize("words", FULL)
def test_a_full_disk_is_said_to_be_one_and_moves_no_ref(
    tmp_path: Path, packages: Packages, small_disk: Path, words: str
) -> None:
    trees, good = packages.branch(small_disk / "f41")
    filler = small_disk / "filler"

    def fill(line: str) -> None:
        if line == words:
            with filler.open("wb") as stream:
                run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], timeout=60, allowed=(1,))
                stream.flush()

    with pytest.raises(InfrastructureError, match=r"disk.* is full"):
        composed(trees, packages, "tool-3.0", fill)
    assert trees.head() == good.rev
    filler.unlink()
    following = composed(trees, packages, "extra-1.0")
    assert (following.parent, trees.head()) == (good.rev, following.rev)
