"""A base image, and what composes packages onto it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from distgate.records import read_record
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Step


@dataclass(frozen=True)
class BaseImage:
    """A qualified base: a bootable qcow2 whose root file system starts at ``root_offset`` bytes."""

    path: Path
    identity: str
    root_offset: int
    ssh_key: Path
    repositories: tuple[str, ...] = ()


def read_base(record: Path) -> BaseImage:
    """The base that the JSON file ``record`` describes; its paths may be relative to the file's directory.

    Raises OSError, and ConfigurationError for what is no such record.
    """
    base, directory = read_record(record, BaseImage), record.absolute().parent
    return replace(base, path=_below(directory, base.path), ssh_key=_below(directory, base.ssh_key))


def _below(directory: Path, path: Path) -> Path:
    return Path(os.path.normpath(directory / path))


@dataclass(frozen=True)
class Omission:
    """A package that was built and not put into the image, and why."""

    package: Nevra
    reason: str


@dataclass(frozen=True)
class Forced:
    """A package that replaced the base's own against the usual order: a downgrade, or a reinstall of one NEVRA."""

    package: Nevra
    action: Literal["downgrade", "reinstall"]
    replaced: Nevra


@dataclass(frozen=True)
class ComposedImage:
    """A bootable qcow2 with the packages under test; ``installed`` was read back from the image's RPM database.

    ``base`` is the identity of the base image, whose file ``backing`` the overlay needs (None: standalone).
    ``size`` is the qcow2's own size in bytes. ``way`` is how it was made, ``reason`` why so; ``driver`` is
    what did it (loop, rootless, guestfs, imagefactory). ``kickstart_hash`` is the SHA-256 of the flattened kickstart.
    """

    path: Path
    base: str
    backing: Path | None
    installed: tuple[Nevra, ...]
    requested: tuple[Nevra, ...]
    size: int
    transaction: str = ""
    way: Literal["layered", "full"] = "layered"
    reason: str = ""
    driver: str = ""
    kickstart_hash: str = ""
    omitted: tuple[Omission, ...] = ()
    forced: tuple[Forced, ...] = ()
    steps: tuple[Step, ...] = ()


class ImageComposer(Protocol):
    """Puts RPMs into a bootable image without booting it."""

    def compose(
        self,
        base: BaseImage,
        repository: Path,
        packages: Sequence[Nevra],
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> ComposedImage:
        """Install exactly ``packages`` from ``repository`` (a directory with repodata) offline.

        ``into`` is the qcow2 to write. Raises PackageError with the solver's or the scriptlet's output when the
        packages cannot be installed, InfrastructureError for everything else; leaves no mount either way.
        """
