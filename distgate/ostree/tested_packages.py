"""The repository of tested packages: of each name the newest build that passed, replaced as a whole."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import remove_tree
from distgate.images.contents import is_newer
from distgate.rpm.nevra import Nevra, RpmFile, read_rpms
from distgate.rpm.repository import make_repository

_GENERATION = ".generation-"


@dataclass(frozen=True)
class TestedPackages:
    """The repository at ``link``: a link to the directory that holds it, so that readers see the old or the new one.

    Whoever changes it holds the lock of its branch.
    """

    __test__ = False  # not a pytest class

    link: Path

    @property
    def exists(self) -> bool:
        return (self.link / "repodata").is_dir()

    def rpms(self) -> list[RpmFile]:
        """What it holds."""
        return read_rpms(sorted(self.link.glob("*.rpm"))) if self.exists else []

    def add(self, repository: Path, packages: Sequence[Nevra]) -> tuple[Nevra, ...]:
        """Take ``packages`` from the directory ``repository``; what it holds afterwards.

        A name's older build goes, and so does every other package of the same source, which the new build replaces.
        Raises InfrastructureError when one of them is not there, or cannot be copied.
        """
        identities = {_identity(package) for package in packages}
        built = [rpm for rpm in read_rpms(sorted(repository.rglob("*.rpm"))) if _identity(rpm.nevra) in identities]
        if missing := identities - {_identity(rpm.nevra) for rpm in built}:
            names = ", ".join(sorted(str(Nevra(*identity)) for identity in missing))
            raise InfrastructureError(f"{repository} has no {names}")
        newest_rpms = newest([*_others(self.rpms(), built), *built])
        self._replace(newest_rpms)
        return tuple(rpm.nevra for rpm in newest_rpms)

    def create(self) -> None:
        """Make it, empty, unless it is there."""
        if not self.exists:
            self._replace([])

    def _replace(self, rpms: Iterable[RpmFile]) -> None:
        generation = self.link.with_name(f"{_GENERATION}{uuid.uuid4().hex[:12]}")
        generation.mkdir(parents=True)
        try:
            for rpm in rpms:
                _link_or_copy(rpm.path, generation / rpm.path.name)
            make_repository(generation)
            link = generation.with_name(f"{generation.name}.link")
            link.symlink_to(generation.name)
            link.replace(self.link)
        except OSError as error:
            remove_tree(generation, ignore_errors=True)
            raise InfrastructureError(f"the tested packages could not be written: {error}") from error
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove earlier generations, and those of killed processes."""
        current = os.readlink(self.link) if self.link.is_symlink() else ""
        for other in self.link.parent.glob(f"{_GENERATION}*"):
            if other.is_symlink():
                other.unlink()
            elif other.name != current:
                remove_tree(other, ignore_errors=True)


def newest(rpms: Iterable[RpmFile]) -> list[RpmFile]:
    """Of each name and architecture the one with the highest epoch, version and release; of equals the last."""
    best: dict[tuple[str, str], RpmFile] = {}
    for rpm in rpms:
        other = best.get((rpm.nevra.name, rpm.nevra.arch))
        if other is None or not is_newer(other.nevra, rpm.nevra):
            best[rpm.nevra.name, rpm.nevra.arch] = rpm
    return sorted(best.values(), key=lambda rpm: rpm.nevra)


def source_name(package: Nevra) -> str:
    """The name of the source package; a package without one is its own."""
    return package.source_rpm.rsplit("-", 2)[0] or package.name


def _others(present: Iterable[RpmFile], new: Iterable[RpmFile]) -> list[RpmFile]:
    """Of what is held, all but older builds of the sources that ``new`` comes from."""
    built = {source_name(rpm.nevra): rpm.nevra for rpm in new}
    return [
        rpm
        for rpm in present
        if (replacing := built.get(source_name(rpm.nevra))) is None or is_newer(rpm.nevra, replacing)
    ]


def _identity(package: Nevra) -> tuple[str, int, str, str, str]:
    return package.name, package.epoch, package.version, package.release, package.arch


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copy2(source, target)
