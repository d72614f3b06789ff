"""What an image that does not boot is compared with: a disk made as it was, without the change, which booted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from distgate.drivers.base import ComposedTree
from distgate.drivers.deployed_disks import DeployedDisks
from distgate.drivers.tree_images import TreeImages


@contextmanager
def booted_before(
    images: TreeImages,
    disks: DeployedDisks,
    way: Literal["deployed", "full"],
    tree: ComposedTree,
    repository: Path,
    *,
    remote_url: str,
    key: Path,
    holder: str = "",
) -> Iterator[Path | None]:
    """The branch's latest image; for a first one the disk of the commit before, which the upgrade began on.

    Such a disk is deployed, as images are that are not installed (``way``). None when there is neither: of an image
    that was installed for the first time nobody knows whether the way or the change keeps it from booting, and the
    disk of ``tree`` itself would show that it is not the change alone. Raises as DeployedDisks.disk.
    """
    latest = images.latest()
    if latest or way != "deployed" or tree.parent is None:
        yield latest.path if latest else None
        return
    with disks.disk(repository, tree.parent, tree.ref, remote_url=remote_url, key=key, holder=holder) as disk:
        yield disk
