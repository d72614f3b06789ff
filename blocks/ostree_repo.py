"""Where the OSTree repositories of Atomic Host's branches are, and how their trees are composed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from blocks.image_factory import ImageFactory
from blocks.site import SiteBlock
from distgate.process import on_path

if TYPE_CHECKING:
    from distgate.atomic.disk import DiskDeployer
    from distgate.atomic.disk_cache import DeployedDisks
    from distgate.atomic.image_methods import TreeImageMethod
    from distgate.atomic.images import TreeImages
    from distgate.ostree.base import TreeComposer
    from distgate.ostree.branch import BranchTrees
    from distgate.ostree.repository import SigningKey
    from distgate.ostree.treefile import Treefile
    from distgate.rpm.transaction import RepositorySource


def _rpm_ostree() -> list[str]:
    from distgate.ostree.compose_rpm_ostree import COMMAND

    return list(COMMAND)


def _kargs() -> list[str]:
    from distgate.atomic.disk import DiskDeployer

    return list(DiskDeployer().kargs)


class OSTreeRepo(SiteBlock):
    """One OSTree repository, package repository and image directory per branch, on the worker's host."""

    _block_type_name: ClassVar[str | None] = "OSTree repository"
    _block_type_slug: ClassVar[str | None] = "ostree-repo"
    _description: ClassVar[str | None] = "Trees and images of Atomic Host, by branch."

    root: str = Field(
        "/var/lib/distgate/ostree", description="Directory with one directory per branch, which the URL serves"
    )
    url: str = Field("", description="Where the directory is served over http, without a slash at the end")
    driver: Literal["auto", "rpm-ostree", "dnf"] = Field(
        "auto", description="What composes trees: rpm-ostree where it is installed, dnf and ostree elsewhere"
    )
    rpm_ostree: list[str] = Field(
        default_factory=_rpm_ostree, description="The command rpm-ostree, as a list of arguments"
    )
    treefiles: dict[str, str] = Field(
        default_factory=dict,
        description="Path of a treefile for each branch, * for all others; empty: those that distgate brings",
    )
    repositories: dict[str, str] = Field(
        default_factory=dict,
        description="URL or directory of repositories by name, before the .repo files beside the treefile",
    )
    timeout: float = Field(7200.0, gt=0, description="Seconds that a compose may take, without waiting for its turn")
    patience: float = Field(
        14400.0, gt=0, description="Seconds that a compose waits for another one of its branch and its tests"
    )
    signing_key: str = Field(
        "", description="What signs commits and summaries: the ID of a GPG key, or a file with an ed25519 key"
    )
    signing_kind: Literal["gpg", "ed25519"] = Field("gpg", description="Which of the two the signing key is")
    gpg_home: str = Field("", description="Directory of the GPG keyring; empty: the worker's own")
    keep_days: float = Field(14.0, ge=0, description="Days after which commits may be pruned")
    disk_size: int = Field(6144, ge=512, description="Size of a disk that is deployed from a commit, in MiB")
    disk_root: str = Field("UUID={uuid}", description="How its kernel finds the root; {uuid} is filled in")
    disk_kargs: list[str] = Field(default_factory=_kargs, description="The other arguments of its kernel")
    image_way: Literal["deployed", "full"] = Field(
        "deployed", description="How images are made: deployed by ostree itself, or installed by the image factory"
    )
    kickstarts: dict[str, str] = Field(
        default_factory=dict,
        description="Path of the kickstart to install from, by branch, * for all others; empty: distgate's own",
    )
    images_kept: int = Field(3, ge=1, description="How many images of a branch are kept, beside the latest good one")

    def trees(self, branch: str, holder: str = "") -> BranchTrees:
        """The trees of a branch; ``holder`` names who uses them, such as a run's ID. ConfigurationError when no
        treefile is known for it, or a repository of it."""
        from distgate.ostree.branch import BranchTrees
        from distgate.ostree.treefile import BASEARCH

        treefile, sources = self.recipe(branch)
        return BranchTrees(
            directory=self._directory(branch),
            ref=treefile.ref or f"fedora/{branch}/{BASEARCH}/atomic-host",
            treefile=treefile,
            composer=self._composer(branch, treefile, sources),
            signing=self._signing,
            keep_days=self.keep_days,
            patience=self.patience,
            holder=holder,
        )

    def recipe(self, branch: str) -> tuple[Treefile, tuple[RepositorySource, ...]]:
        """What the trees of a branch are made of, and where its packages are. Raises ConfigurationError."""
        from distgate.ostree.repo_files import repositories_of
        from distgate.ostree.treefile import read_treefile, release_of, treefile_for

        named = self.treefiles.get(branch) or self.treefiles.get("*")
        treefile = read_treefile(Path(named) if named else treefile_for(branch), release_of(branch))
        return treefile, repositories_of(treefile, self.repositories)

    def deployer(self) -> DiskDeployer:
        """What makes bootable disks of commits."""
        from distgate.atomic.disk import DiskDeployer

        return DiskDeployer(size=self.disk_size, root=self.disk_root, kargs=tuple(self.disk_kargs))

    def maker(self, branch: str) -> TreeImageMethod:
        """What makes the images of a branch. ConfigurationError when they are installed and no kickstart is known."""
        from distgate.atomic.image_methods import DeployedImage, InstalledImage
        from distgate.kickstart.definition import definition_for
        from distgate.ostree.treefile import release_of

        if self.image_way == "deployed":
            return DeployedImage(self.deployer())
        factory = ImageFactory.of(self._site)
        named = self.kickstarts.get(branch) or self.kickstarts.get("*")
        kickstart = Path(named) if named else definition_for(branch, "atomic")
        return InstalledImage(factory.builder(), kickstart, release_of(branch), factory.timeout)

    def disks(self, branch: str) -> DeployedDisks:
        """The disks of the branch's commits that are kept for tests."""
        from distgate.atomic.disk_cache import DeployedDisks

        return DeployedDisks(self._directory(branch) / "disks", self.deployer())

    def compose_url(self, branch: str) -> str:
        """Where clients find the branch's OSTree repository."""
        return f"{self.url.rstrip('/')}/{branch}/ostree"

    def images(self, branch: str) -> TreeImages:
        """The images of a branch's trees, and where clients find them."""
        from distgate.atomic.images import TreeImages

        base_url = f"{self.url.rstrip('/')}/{branch}/images"
        return TreeImages(self._directory(branch) / "images", base_url, self.images_kept)

    def _directory(self, branch: str) -> Path:
        return Path(self.root) / branch

    def _composer(self, branch: str, treefile: Treefile, sources: tuple[RepositorySource, ...]) -> TreeComposer:
        from distgate.ostree.compose_dnf import DnfTreeComposer
        from distgate.ostree.compose_rpm_ostree import RpmOstreeComposer

        driver = self.driver
        if driver == "auto":
            driver = "rpm-ostree" if on_path(self.rpm_ostree[0]) else "dnf"
        if driver == "dnf":
            return DnfTreeComposer(treefile, sources, self.timeout)
        cache = self._directory(branch) / "cache"
        return RpmOstreeComposer(treefile, sources, cache, self.timeout, tuple(self.rpm_ostree))

    @property
    def _signing(self) -> SigningKey | None:
        if not self.signing_key:
            return None
        from distgate.ostree.repository import SigningKey

        return SigningKey(self.signing_kind, self.signing_key, Path(self.gpg_home) if self.gpg_home else None)
