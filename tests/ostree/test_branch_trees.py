"""Trees of a branch are composed from a treefile, tested packages and a change; by dnf or by rpm-ostree, alike."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tiny_trees import REF, TREEFILE, Packages, composed, installed, summary_of, trees_in

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.ostree.branch import chosen
from distgate.ostree.branch_directory import PendingTree, TreeVersions, next_version
from distgate.ostree.repository import OstreeRepository
from distgate.process import run
from distgate.rpm.diff import diff_text
from distgate.rpm.nevra import Nevra

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root")
both_drivers = pytest.mark.parametrize("driver", ["dnf", "rpm-ostree"])


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages.built(tmp_path_factory.mktemp("packages"))


#: The changes of one branch, one after another: what each tree holds, and how it differs from the one before.
STORY = (
    ("tool-2.0", "41.1", ["base-1.0", "tool-2.0"], "+ base-1.0-3.noarch\n+ tool-2.0-3.noarch\n"),
    ("tool-3.0", "41.2", ["base-1.0", "tool-3.0"], "! tool-2.0-3.noarch -> tool-3.0-3.noarch\n"),
    ("extra-1.0", "41.3", ["base-1.0", "extra-1.0", "tool-3.0"], "+ extra-1.0-3.noarch\n"),
    ("tool-0.5", "41.4", ["base-1.0", "extra-1.0", "tool-0.5"], "! tool-3.0-3.noarch -> tool-0.5-3.noarch\n"),
)


@needs_root
@both_drivers
def test_each_tree_holds_its_change_and_what_passed_before(tmp_path: Path, packages: Packages, driver: str) -> None:
    trees = trees_in(tmp_path / "f41", packages, driver)
    before = None
    for change, version, held, text in STORY:
        tree = composed(trees, packages, change)
        assert (tree.version, tree.parent, tree.driver, tree.ref) == (version, before, driver, REF)
        assert installed(tree) == held
        assert diff_text(tree.changes) == text
        assert tree.requested == tuple(packages.change(change)[1])
        assert (tree.size > 0, tree.delta_size > 0, tree.signed) == (True, before is not None, False)
        assert trees.head() == tree.rev
        assert trees.installed(tree.rev) == tree.installed
        before = tree.rev
    said = run(["ostree", "log", f"--repo={trees.published}", REF], timeout=60).output
    assert [line.split()[1] for line in said.splitlines() if line.startswith("Version:")] == [
        "41.4",
        "41.3",
        "41.2",
        "41.1",
    ]


@needs_root
def test_the_commit_is_bound_to_its_ref_and_dated(tmp_path: Path, packages: Packages) -> None:
    trees, tree = packages.branch(tmp_path / "f41")
    words = ["ostree", "show", f"--repo={trees.published}", tree.rev]
    assert run([*words, "--print-metadata-key=ostree.ref-binding"], timeout=60).output == f"['{REF}']\n"
    assert run([*words, "--print-metadata-key=version"], timeout=60).output == "'41.1'\n"
    assert OstreeRepository(trees.published).describe(tree.rev).version == "41.1"


REFUSED: tuple[tuple[str, str, str, type[DistgateError], str], ...] = (
    (
        "a dependency that nobody has",
        "needy-1.0",
        TREEFILE,
        PackageError,
        "nothing provides libnosuch.so.7 needed by",
    ),
    ("a scriptlet that fails", "angry-1.0", TREEFILE, PackageError, "angry|not like this"),
    (
        "a treefile with a package that nobody has",
        "tool-2.0",
        TREEFILE.replace("base", "base nosuch"),
        ConfigurationError,
        "nosuch",
    ),
    (
        "a treefile whose script fails",
        "tool-2.0",
        TREEFILE + "postprocess: ['exit 3']\n",
        InfrastructureError,
        "postprocess-1 failed",
    ),
)


@needs_root
@both_drivers
@pytest.mark.parametrize(
    ("change", "text", "kind", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_a_tree_that_cannot_be_composed_leaves_the_ref_and_says_who_is_to_blame(
    tmp_path: Path, packages: Packages, driver: str, change: str, text: str, kind: type[DistgateError], words: str
) -> None:
    trees, good = packages.branch(tmp_path / "f41", driver=driver, text=text)
    with pytest.raises(kind, match=words):
        composed(trees, packages, change)
    assert trees.head() == good.rev
    assert not list((tmp_path / "f41").glob(".composing-*"))


@needs_root
def test_a_key_that_only_rpm_ostree_follows_is_refused_by_name(tmp_path: Path, packages: Packages) -> None:
    trees = trees_in(tmp_path / "f41", packages, text=f"{TREEFILE}documentation: false\n")
    with pytest.raises(ConfigurationError, match="does not follow documentation"):
        composed(trees, packages, "tool-2.0")


@needs_root
def test_a_bootable_tree_without_a_kernel_is_refused(tmp_path: Path, packages: Packages) -> None:
    trees = trees_in(tmp_path / "f41", packages, text=TREEFILE.replace("container: true", "container: false"))
    with pytest.raises(ConfigurationError, match="has one kernel, and this one has none"):
        composed(trees, packages, "tool-2.0")


@needs_root
def test_a_withdrawn_tree_is_no_longer_served_under_the_ref_and_still_by_its_hash(
    tmp_path: Path, packages: Packages
) -> None:
    trees, good = packages.branch(tmp_path / "f41")
    bad = composed(trees, packages, "tool-3.0", accepted=False)
    for _ in range(2):  # a second time changes nothing
        trees.withdraw(bad)
        assert trees.head() == good.rev
    assert OstreeRepository(trees.published).holds(bad.rev)
    assert summary_of(trees.published) == {REF: good.rev}
    following = composed(trees, packages, "extra-1.0")
    assert (following.version, following.parent) == ("41.3", good.rev), "41.2 was another tree's"
    assert installed(following) == ["base-1.0", "extra-1.0", "tool-2.0"], "what did not pass is not in it"


@needs_root
def test_a_withdrawn_tree_is_put_forward_again_unless_the_branch_has_moved_on(
    tmp_path: Path, packages: Packages
) -> None:
    trees, good = packages.branch(tmp_path / "f41")
    bad = composed(trees, packages, "tool-3.0", accepted=False)
    trees.withdraw(bad)
    for _ in range(2):  # a second time changes nothing
        trees.republish(bad)
        assert (trees.head(), summary_of(trees.published)) == (bad.rev, {REF: bad.rev})
    trees.withdraw(bad)
    assert trees.head() == good.rev
    following = composed(trees, packages, "extra-1.0")
    with pytest.raises(InfrastructureError, match="the branch has moved on since"):
        trees.republish(bad)
    assert trees.head() == following.rev


@needs_root
def test_the_first_tree_can_be_withdrawn_too(tmp_path: Path, packages: Packages) -> None:
    trees = trees_in(tmp_path / "f41", packages)
    trees.withdraw(composed(trees, packages, "tool-2.0", accepted=False))
    assert (trees.head(), summary_of(trees.published)) == (None, {})
    assert composed(trees, packages, "tool-3.0").version == "41.2"


@needs_root
def test_an_accepted_tree_is_not_withdrawn(tmp_path: Path, packages: Packages) -> None:
    trees, tree = packages.branch(tmp_path / "f41")
    trees.withdraw(tree)
    assert trees.head() == tree.rev
    trees.accept(tree, *packages.change("tool-2.0"))  # a second time changes nothing
    assert [rpm.nevra.version for rpm in trees.tested.rpms()] == ["2.0"]


@needs_root
def test_an_accepted_tree_stays_accepted_behind_the_head(tmp_path: Path, packages: Packages) -> None:
    trees, first = packages.branch(tmp_path / "f41")
    composed(trees, packages, "extra-1.0")
    last = composed(trees, packages, "tool-4.0", accepted=False)
    trees.republish(first)  # a run that is retried in a later stage
    trees.accept(first, *packages.change("tool-2.0"))
    assert (trees.head(), trees.unaccepted()) == (last.rev, PendingTree(last.rev, last.parent, "a test"))
    assert [str(rpm.nevra) for rpm in trees.tested.rpms()] == ["extra-1.0-3.noarch", "tool-2.0-3.noarch"]


@needs_root
def test_a_tree_that_nobody_accepted_is_withdrawn_by_the_next_compose(tmp_path: Path, packages: Packages) -> None:
    trees, good = packages.branch(tmp_path / "f41")
    abandoned = composed(trees, packages, "tool-3.0", accepted=False)
    lines: list[str] = []
    following = composed(trees, packages, "extra-1.0", lines.append)
    assert following.parent == good.rev
    assert any(f"tree {abandoned.rev[:12]} was never accepted" in line for line in lines)
    with pytest.raises(InfrastructureError, match="was withdrawn before it was accepted"):
        trees.accept(abandoned, *packages.change("tool-3.0"))


VERSIONS = (
    ("the first", "41", "", "41.1"),
    ("the next", "41", "41.1", "41.2"),
    ("the next of several", "41", "41.3 41.11 41.2 42.50", "41.12"),
    ("beyond nine", "41", "41.9", "41.10"),
    ("a longer prefix", "41.0", "41.0.3", "41.0.4"),
    ("another release", "42", "41.7", "42.1"),
    ("a prefix of another", "4", "41.7", "4.1"),
    ("Rawhide", "rawhide", "rawhide.3", "rawhide.4"),
    ("a version of another kind", "41", "41.20260101.0", "41.1"),
)


@pytest.mark.parametrize(
    ("prefix", "before", "expected"), [case[1:] for case in VERSIONS], ids=[case[0] for case in VERSIONS]
)
def test_versions_count_up_from_the_parents(prefix: str, before: str, expected: str) -> None:
    assert next_version(prefix, before.split()) == expected


def test_a_version_that_was_published_is_never_given_out_again(tmp_path: Path) -> None:
    versions = TreeVersions(tmp_path / "versions.json")
    assert (versions.remembers(), versions.next("41", ["41.4"])) == (False, "41.5")
    for version in ("41.5", "42.1", "41.0.7"):
        versions.publish(version)
    assert [versions.next(prefix, ["41.2", "41.0.2"]) for prefix in ("41", "42", "41.0", "43")] == [
        "41.6",
        "42.2",
        "41.0.8",
        "43.1",
    ]


@needs_root
def test_versions_of_withdrawn_trees_count_where_nobody_has_counted_yet(tmp_path: Path, packages: Packages) -> None:
    trees, _ = packages.branch(tmp_path / "f41")
    trees.withdraw(composed(trees, packages, "tool-3.0", accepted=False))
    (trees.directory / "versions.json").unlink()  # a branch of an older distgate
    assert composed(trees, packages, "extra-1.0").version == "41.3"


CHOICES: tuple[tuple[str, str, set[str], str], ...] = (
    ("what the tree has", "systemd systemd-libs systemd-tests", {"systemd", "systemd-libs"}, "systemd systemd-libs"),
    ("all of what is new to it", "fish fish-data", {"bash"}, "fish fish-data"),
    ("nothing of nothing", "", {"bash"}, ""),
)


@pytest.mark.parametrize(
    ("built", "known", "taken"), [case[1:] for case in CHOICES], ids=[case[0] for case in CHOICES]
)
def test_of_what_was_built_a_tree_takes_what_it_knows(built: str, known: set[str], taken: str) -> None:
    packages = [Nevra(name, 0, "1", "1", "x86_64") for name in built.split()]
    assert " ".join(package.name for package in chosen(packages, known)) == taken
