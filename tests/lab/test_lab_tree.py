"""The lab's Atomic Host: a whole tree with a kernel, composed from the lab's repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.ostree.branch import BranchTrees
from distgate.ostree.repository import OstreeRepository
from distgate.process import run
from distgate.rpm.diff import diff_text
from distgate.rpm.nevra import read_rpms
from lab.images.tree import begun_lab_trees

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root")


@pytest.fixture(scope="module")
def trees(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> BranchTrees:
    return begun_lab_trees(cache, tmp_path_factory.mktemp("trees"))


def test_the_labs_tree_has_the_shape_that_ostree_deploys(trees: BranchTrees, tmp_path: Path) -> None:
    head = trees.head()
    assert head
    tree = tmp_path / "tree"
    run(["ostree", "checkout", "-U", f"--repo={trees.published}", head, tree], timeout=300)
    assert {path.name: os.readlink(path) for path in tree.iterdir() if path.is_symlink()} == {
        "bin": "usr/bin",
        "home": "var/home",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "media": "run/media",
        "mnt": "var/mnt",
        "opt": "var/opt",
        "ostree": "sysroot/ostree",
        "root": "var/roothome",
        "sbin": "usr/sbin",
        "srv": "var/srv",
    }
    directories = {path.name for path in tree.iterdir() if not path.is_symlink()}
    assert directories == {"boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "usr", "var"}
    assert not [name for name in directories - {"usr"} if list((tree / name).iterdir())]
    (kernel,) = tree.glob("usr/lib/modules/*/vmlinuz")
    assert (kernel.parent / "initramfs.img").is_file()
    assert not (kernel.parent / "initramfs-ostree.img").exists()
    assert (tree / "usr/etc/passwd").is_file()
    assert os.readlink(tree / "usr/etc/systemd/system/default.target") == "/usr/lib/systemd/system/lab.target"
    words = (tree / "usr/lib/tmpfiles.d/distgate-tree.conf").read_text().splitlines()
    assert {"d /var/roothome 0700 0 0 -", "d /var/tmp 1777 0 0 -", "C /var/roothome/.bashrc - - - -"} <= set(words)
    assert (tree / "usr/share/factory/var/roothome/.bashrc").is_file()
    metadata = ["ostree", "show", f"--repo={trees.published}", "--print-metadata-key=ostree.bootable", head]
    assert run(metadata, timeout=60).output == "true\n"


def test_a_change_makes_the_next_tree(trees: BranchTrees, tmp_path: Path) -> None:
    before = trees.head()
    assert before
    repository = make_repository(tmp_path, [SmallRpm("demo")])
    rpms = [rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))]
    tree = trees.compose(repository, rpms, print)
    assert (tree.parent, tree.version, trees.head()) == (before, "41.2", tree.rev)
    assert diff_text(tree.changes) == "+ demo-1.0-3.noarch\n"
    held = {package.name for package in tree.installed}
    assert {"demo", "kernel-core", "ostree", "openssh-server", "systemd"} <= held
    assert 0 < tree.delta_size < tree.size / 20
    assert OstreeRepository(trees.published).holds(tree.rev)
