"""With what an image that does not boot is compared, so that the right one is blamed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from distgate.atomic.disk import DiskDeployer
from distgate.atomic.disk_cache import DeployedDisks
from distgate.atomic.image_methods import reference_image
from distgate.atomic.images import TreeImages
from distgate.ostree.base import ComposedTree

REV, PARENT = "a1" * 32, "b2" * 32
NEW = ComposedTree("fedora/f41/x86_64/atomic-host", REV, "41.2", PARENT, (), (), (), "dnf", 0)
FIRST = ComposedTree("fedora/f41/x86_64/atomic-host", REV, "41.1", None, (), (), (), "dnf", 0)


@dataclass(frozen=True)
class PaperDeployer:
    """Writes down of which commit a disk would be."""

    timeout: float = 1.0

    def deploy(self, _repository: Path, rev: str, _ref: str, into: Path, **_: Any) -> None:
        into.write_text(f"disk of {rev}")


#: The tree, whether an image of the branch has booted before, how images are made; what is compared with.
CONTROLS: list[tuple[ComposedTree, bool, Literal["deployed", "full"], str | None]] = [
    (NEW, True, "deployed", "the latest image"),
    (NEW, True, "full", "the latest image"),
    (NEW, False, "deployed", f"disk of {PARENT}"),
    (NEW, False, "full", None),
    (FIRST, False, "deployed", None),
]


@pytest.mark.parametrize(("tree", "promoted", "way", "control"), CONTROLS)
def test_an_image_is_compared_with_one_made_in_the_same_way_without_the_change(
    tree: ComposedTree, promoted: bool, way: Literal["deployed", "full"], control: str | None, tmp_path: Path
) -> None:
    images = TreeImages(tmp_path / "images", "http://here/images", 3)
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAA distgate\n")
    if promoted:
        (tmp_path / "old.qcow2").write_text("the latest image")
        old = ComposedTree(tree.ref, PARENT, "41.0", None, (), (), (), "dnf", 0)
        images.promote(images.place(tmp_path / "old.qcow2", old))
    (tmp_path / "disks").mkdir()
    disks = DeployedDisks(tmp_path / "disks", cast(DiskDeployer, PaperDeployer()))
    key = tmp_path / "key"
    with reference_image(images, disks, way, tree, tmp_path, remote_url="http://here/ostree", key=key) as found:
        assert (found.read_text() if found else None) == control
