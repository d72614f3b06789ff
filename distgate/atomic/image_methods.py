"""The two ways from an OSTree commit to an image: a disk that ostree deploys, or an installation by kickstart; and
the image without the change, made in the same way, that one which does not boot is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from distgate.atomic.disk import DiskDeployer, public_keys
from distgate.atomic.disk_cache import DeployedDisks
from distgate.atomic.guest import check_served
from distgate.atomic.images import TreeImages
from distgate.kickstart.base import BuiltImage, ImageBuilder
from distgate.kickstart.definition import flatten
from distgate.kickstart.edit import with_ostree, with_root_key
from distgate.ostree.base import ComposedTree
from distgate.steps import Progress


@dataclass(frozen=True)
class BuiltTreeImage:
    """An image of a commit; ``kickstart`` is the text that it was installed by, empty where nothing was installed."""

    built: BuiltImage
    way: Literal["deployed", "full"]
    kickstart: str = ""


class TreeImageMethod(Protocol):
    """What makes the image of a commit."""

    def make(
        self,
        repository: Path,
        tree: ComposedTree,
        url: str,
        key: Path,
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> BuiltTreeImage:
        """Write the qcow2 ``into``: a host of ``tree``, which is in ``repository`` and served at ``url``.

        The holder of the private ssh ``key`` gets in as root. Raises PackageError when no host can be made of the
        tree, InfrastructureError for everything else; ``into`` is absent then.
        """


@dataclass(frozen=True)
class DeployedImage:
    """A TreeImageMethod without an installer: seconds, and exactly the commit."""

    deployer: DiskDeployer

    def make(
        self,
        repository: Path,
        tree: ComposedTree,
        url: str,
        key: Path,
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> BuiltTreeImage:
        """See TreeImageMethod."""
        built = self.deployer.deploy(repository, tree.rev, tree.ref, into, remote_url=url, key=key, progress=progress)
        return BuiltTreeImage(built, "deployed")


@dataclass(frozen=True)
class InstalledImage:
    """A TreeImageMethod by ``builder``: an installer follows the ``kickstart``, whose ``ostreesetup`` is edited.

    An installer deploys what the ref names when it looks: the compose must be at the ref's head, and the smoke test
    tells whether it was. ``release`` ("rawhide", "44") describes the image to the builder, ``timeout`` is in seconds.
    """

    builder: ImageBuilder
    kickstart: Path
    release: str
    timeout: float
    osname: str = "fedora-atomic"
    remote: str = "fedora-atomic"

    def text(self, tree: ComposedTree, url: str, key: Path) -> str:
        """The flattened kickstart that installs ``tree``. Raises ConfigurationError when it cannot be edited."""
        text = with_ostree(flatten(self.kickstart), url, self.remote, self.osname, tree.ref)
        for public in public_keys(key):
            text = with_root_key(text, public)
        return text

    def make(
        self,
        repository: Path,
        tree: ComposedTree,
        url: str,
        key: Path,
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> BuiltTreeImage:
        """See TreeImageMethod."""
        text = self.text(tree, url, key)
        check_served(url, tree)
        name = f"{self.osname}-{tree.version}"
        return BuiltTreeImage(
            self.builder.build(text, name, self.release, into, self.timeout, progress), "full", text
        )


@contextmanager
def reference_image(
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
