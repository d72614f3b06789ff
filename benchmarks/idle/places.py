"""The blocks of a site at which nothing is done: each stands in for the one of the same kind (SiteBlock.stand_in).

``python -m benchmarks.idle.places DIRECTORY`` saves them in the Prefect server of the environment. The directory
holds ``packages``, what every build makes, and ``installed``, what rpm says in every guest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from benchmarks.idle.drivers import IdleComposer, IdleGuests, IdleHub, IdleSuites
from blocks import DistGit, GuestMachine, ImageStore, KojiInstance
from distgate.builds.base import BuildHub
from distgate.changes.change import Change
from distgate.guests.base import GuestHost
from distgate.images.base import BaseImage, ImageComposer
from distgate.steps import Progress

if TYPE_CHECKING:
    from distgate.rpm.nevra import Nevra
    from distgate.runners.session import RunnerFor

SITE = "idle"
_KICKSTART = "%packages\nbash\n%end\n"
_SUITE = "- hosts: localhost\n  tags: [classic]\n  tasks: []\n"


class IdleKoji(KojiInstance):
    """``topurl`` is the directory."""

    _block_type_name: ClassVar[str | None] = "Idle Koji"
    _block_type_slug: ClassVar[str | None] = "idle-koji"

    def hub(self) -> BuildHub:
        return IdleHub(Path(self.topurl) / "packages")


class IdleDistGit(DistGit):
    """Every commit has one suite."""

    _block_type_name: ClassVar[str | None] = "Idle dist-git"
    _block_type_slug: ClassVar[str | None] = "idle-dist-git"

    def checkout(self, change: Change, into: Path) -> Path:
        (into / "tests").mkdir(parents=True)
        (into / "tests/tests.yml").write_text(_SUITE)
        return into


class IdleStore(ImageStore):
    """One base image for every branch."""

    _block_type_name: ClassVar[str | None] = "Idle store"
    _block_type_slug: ClassVar[str | None] = "idle-store"

    def kickstart(self, branch: str, repository_url: str, packages: Sequence[Nevra]) -> str:
        return _KICKSTART

    @contextmanager
    def leased_base(self, branch: str, holder: str, progress: Progress = lambda _line: None) -> Iterator[BaseImage]:
        yield BaseImage(self.directory / "base.qcow2", "idle", 0, self.directory / "key")

    @contextmanager
    def lease(self, branch: str, identity: str, holder: str) -> Iterator[BaseImage]:
        with self.leased_base(branch, holder) as base:
            yield base

    def composer(self) -> ImageComposer:
        return IdleComposer()


class IdleMachine(GuestMachine):
    """``state`` is the directory."""

    _block_type_name: ClassVar[str | None] = "Idle machine"
    _block_type_slug: ClassVar[str | None] = "idle-machine"

    def guests(self) -> GuestHost:
        return IdleGuests(Path(self.state) / "installed")

    def suites(
        self,
        branch: str,
        *,
        roles_path: Sequence[Path],
        ansible: Mapping[str, Path],
        srpm: Path | None,
        tag: str,
        variables: Mapping[str, str] | None,
    ) -> RunnerFor:
        return IdleSuites()


def main() -> None:
    """Save the documents of the site."""
    directory, here = sys.argv[1], "benchmarks.idle.places"
    for block in (
        KojiInstance(stand_in=f"{here}:{IdleKoji.__name__}", topurl=directory),
        DistGit(stand_in=f"{here}:{IdleDistGit.__name__}"),
        ImageStore(stand_in=f"{here}:{IdleStore.__name__}", root=directory),
        GuestMachine(stand_in=f"{here}:{IdleMachine.__name__}", state=directory),
    ):
        block.save(SITE, overwrite=True)


if __name__ == "__main__":
    main()
