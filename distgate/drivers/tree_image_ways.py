"""The two ways from an OSTree commit to an image: a disk that ostree deploys, or an installation by kickstart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from distgate.drivers.base import BuiltImage, ComposedTree, ImageBuilder, Progress
from distgate.drivers.deployed_disk import DiskDeployer, public_keys
from distgate.drivers.tree_guest import check_served
from distgate.kickstart import flatten
from distgate.kickstart_edit import with_ostree, with_root_key


@dataclass(frozen=True)
class MadeTreeImage:
    """An image of a commit; ``kickstart`` is the text that it was installed by, empty where nothing was installed."""

    built: BuiltImage
    way: Literal["deployed", "full"]
    kickstart: str = ""


class TreeImageWay(Protocol):
    """A way to make the image of a commit."""

    def make(
        self,
        repository: Path,
        tree: ComposedTree,
        url: str,
        key: Path,
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> MadeTreeImage:
        """Write the qcow2 ``into``: a host of ``tree``, which is in ``repository`` and served at ``url``.

        The holder of the private ssh ``key`` gets in as root. Raises PackageError when no host can be made of the
        tree, InfrastructureError for everything else; ``into`` is absent then.
        """


@dataclass(frozen=True)
class DeployedImage:
    """A TreeImageWay without an installer: seconds, and exactly the commit."""

    deployer: DiskDeployer

    def make(
        self,
        repository: Path,
        tree: ComposedTree,
        url: str,
        key: Path,
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> MadeTreeImage:
        """See TreeImageWay."""
        built = self.deployer.deploy(repository, tree.rev, tree.ref, into, remote_url=url, key=key, progress=progress)
        return MadeTreeImage(built, "deployed")


@dataclass(frozen=True)
class InstalledImage:
    """A TreeImageWay by ``builder``: an installer follows the ``kickstart``, whose ``ostreesetup`` is edited.

    An installer deploys what the ref names when it looks: the compose must be at the ref's head, and the smoke test
    tells whether it was. ``release`` ("rawhide", "44") describes the image to the builder, ``timeout`` is in seconds,
    ``syntax`` is the kickstart's ("F44"; empty: the newest).
    """

    builder: ImageBuilder
    kickstart: Path
    release: str
    timeout: float
    osname: str = "fedora-atomic"
    remote: str = "fedora-atomic"
    syntax: str = ""

    def text(self, tree: ComposedTree, url: str, key: Path) -> str:
        """The flattened kickstart that installs ``tree``. Raises ConfigurationError when it cannot be edited."""
        text = with_ostree(flatten(self.kickstart), url, self.remote, self.osname, tree.ref, syntax=self.syntax)
        for public in public_keys(key):
            text = with_root_key(text, public, syntax=self.syntax)
        return text

    def make(
        self,
        repository: Path,
        tree: ComposedTree,
        url: str,
        key: Path,
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> MadeTreeImage:
        """See TreeImageWay."""
        text = self.text(tree, url, key)
        check_served(url, tree)
        name = f"{self.osname}-{tree.version}"
        return MadeTreeImage(self.builder.build(text, name, self.release, into, self.timeout, progress), "full", text)
