"""Where a change's sources are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from blocks.site import SiteBlock
from distgate.builds.checkout import checkout
from distgate.builds.lookaside import FEDORA, Lookaside
from distgate.changes.change import Change

if TYPE_CHECKING:
    from distgate.builds.source_package import SourcePackage


class DistGit(SiteBlock):
    """A dist-git server that is read over git's own protocols."""

    _block_type_name: ClassVar[str | None] = "dist-git"
    _block_type_slug: ClassVar[str | None] = "dist-git"
    _description: ClassVar[str | None] = "Address of the dist-git repositories that Koji and the test stage read."

    url: str = Field(
        "https://src.fedoraproject.org/{namespace}/{repo}.git",
        description="Address of a repository; {namespace} and {repo} are filled in",
    )

    lookaside: str = Field(
        FEDORA,
        description="Address of a source file in the lookaside cache; {namespace}, {repo}, {file}, {hashtype} and "
        "{hash} are filled in",
    )

    def address(self, change: Change) -> str:
        """The repository's address."""
        return self.url.format(namespace=change.namespace, repo=change.repo)

    def source(self, change: Change) -> str:
        """The address as Koji wants it: ``git+URL#REV``."""
        return f"git+{self.address(change)}#{change.rev}"

    def checkout(self, change: Change, into: Path) -> Path:
        """The commit's files in ``into``; no hook of the repository is run."""
        return checkout(self.address(change), change.rev, into)

    def source_package(self, change: Change, dist: str, into: Path) -> SourcePackage:
        """The commit's source package in ``into``, for the distribution's tag ``dist``, with a release that names the
        commit; its spec file is read in a sandbox."""
        from distgate.builds.source_package import SourcePackager

        packager = SourcePackager(Lookaside(self.lookaside))
        return packager.package(self.address(change), change.namespace, change.repo, change.rev, dist, into)
