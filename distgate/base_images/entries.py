"""What lies in a store of base images: one directory per base, described by the records in it.

``base.json`` is written once, ``qualification.json`` when the base has been booted, and the times of the empty files
``used`` and ``confirmed`` say when it was last asked for and when the repositories last had just this content. The
file ``identity`` tells the store from every other: an image is of use only where the base below it lies.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from uuid import uuid4

from pydantic import BeforeValidator

from distgate.base_images.qualification import Qualification
from distgate.errors import DistgateError, InfrastructureError
from distgate.files import disk_usage
from distgate.images.base import BaseImage, read_base
from distgate.records import read_record, write_record
from distgate.rpm.nevra import Nevra
from distgate.steps import Step

IMAGE = "base.qcow2"
RECORD = "base.json"
KICKSTART = "kickstart.ks"
LOG = "build.log"
QUALIFICATION = "qualification.json"
USED = "used"
CONFIRMED = "confirmed"

_IDENTITY = re.compile(r"[0-9a-f]{16}")


def _parsed(lines: Iterable[str]) -> tuple[Nevra, ...]:
    return tuple(map(Nevra.parse, lines))


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base once it is built: ``created`` is in seconds of the epoch, ``size`` in bytes on disk."""

    branch: str
    name: str
    kickstart_hash: str
    snapshot: str
    created: float
    size: int
    steps: tuple[Step, ...]
    packages: Annotated[tuple[Nevra, ...], BeforeValidator(_parsed)] = field(repr=False)


@dataclass(frozen=True)
class BaseEntry:
    """A base in the store as it is now; times are in seconds of the epoch, ``size`` is all it takes of the disk."""

    directory: Path
    base: BaseImage
    facts: BaseFacts
    qualification: Qualification | None
    size: int
    used: float
    confirmed: float

    @property
    def identity(self) -> str:
        return self.directory.name

    @property
    def title(self) -> str:
        """How a sentence names it."""
        return f"base image {self.identity} ({self.facts.name}, {self.facts.branch})"

    @property
    def qualified(self) -> bool:
        return self.qualification is not None and self.qualification.passed

    @property
    def refused(self) -> bool:
        """Whether it was booted and found unfit."""
        return self.qualification is not None and not self.qualification.passed


@dataclass(frozen=True)
class UnreadableEntry:
    """Something in the store that is no readable base, and why; ``named_as_base`` when it has the name of one."""

    directory: Path
    problem: str
    size: int
    named_as_base: bool


@dataclass(frozen=True)
class StoreListing:
    """Everything in a store, the newest base first."""

    entries: tuple[BaseEntry, ...]
    odd: tuple[UnreadableEntry, ...]

    @property
    def size(self) -> int:
        """Bytes of disk that all of it takes."""
        return sum(entry.size for entry in self.entries) + sum(odd.size for odd in self.odd)

    @property
    def current(self) -> dict[tuple[str, str], BaseEntry]:
        """The base that serves each branch and image: the qualified one that was confirmed last."""
        ordered = sorted((entry for entry in self.entries if entry.qualified), key=lambda entry: entry.confirmed)
        return {(entry.facts.branch, entry.facts.name): entry for entry in ordered}

    @property
    def refused_bases(self) -> dict[tuple[str, str], BaseEntry]:
        """The refused base that would be built again were it not here: newer than the current one."""
        current = self.current
        newest: dict[tuple[str, str], BaseEntry] = {}
        for entry in sorted((entry for entry in self.entries if entry.refused), key=lambda entry: entry.confirmed):
            key = (entry.facts.branch, entry.facts.name)
            if key not in current or current[key].confirmed <= entry.confirmed:
                newest[key] = entry
        return newest

    def qualified_for(self, branch: str, kickstart_hash: str) -> BaseEntry | None:
        """The qualified base of a branch and kickstart that was confirmed last."""
        fitting = [
            entry
            for entry in self.entries
            if entry.qualified and (entry.facts.branch, entry.facts.kickstart_hash) == (branch, kickstart_hash)
        ]
        return max(fitting, key=lambda entry: entry.confirmed, default=None)


def list_store(bases: Path) -> StoreListing:
    """All that is in the directory ``bases``; what cannot be read is odd and hides nothing else."""
    entries: list[BaseEntry] = []
    odd: list[UnreadableEntry] = []
    for directory in _visible(bases):
        try:
            entries.append(read_entry(directory))
        except InfrastructureError as error:
            named_as_base = bool(_IDENTITY.fullmatch(directory.name))
            odd.append(UnreadableEntry(directory, error.message, disk_usage(directory), named_as_base))
        except FileNotFoundError:
            continue  # pruned meanwhile
    return StoreListing(tuple(sorted(entries, key=lambda entry: -entry.facts.created)), tuple(odd))


def read_entry(directory: Path) -> BaseEntry:
    """The base in ``directory``. FileNotFoundError when there is none, InfrastructureError when it is broken."""
    try:
        base, facts = _read_base(directory), read_record(directory / RECORD, BaseFacts)
        tried = directory / QUALIFICATION
        return BaseEntry(
            directory=directory,
            base=base,
            facts=facts,
            qualification=read_record(tried, Qualification) if tried.exists() else None,
            size=disk_usage(directory),
            used=_time(directory / USED, facts.created),
            confirmed=_time(directory / CONFIRMED, facts.created),
        )
    except (OSError, DistgateError) as error:
        if not directory.exists():
            raise FileNotFoundError(directory) from None
        reason = _reason(error).removeprefix(f"{directory}/")
        raise InfrastructureError(
            f"{directory} is no readable base image: {reason}", hint="distgate images prune removes it"
        ) from error


def write_entry(directory: Path, base: BaseImage, facts: BaseFacts) -> None:
    """Write the record of a base, which read_base reads too.

    What lies in the store is named from the record's own directory, so that the store may have another name
    elsewhere: in a container, or on the next host.
    """
    paths = {"path": base.path.name, "ssh_key": _from_entry(base)}
    packages = ["|".join(map(str, astuple(package))) for package in facts.packages]
    write_record(directory / RECORD, {**asdict(base), **paths, **asdict(facts), "packages": packages})


def largest(entries: Iterable[BaseEntry], branch: str, name: str) -> int | None:
    """The size of the newest base of a branch and image, else of any of that image, else None."""
    same: Sequence[BaseEntry] = [entry for entry in entries if entry.facts.name == name]
    closest = [entry for entry in same if entry.facts.branch == branch] or same
    return closest[0].size if closest else None


def _visible(bases: Path) -> Iterator[Path]:
    if bases.is_dir():
        yield from (path for path in sorted(bases.iterdir()) if not path.name.startswith("."))


def _from_entry(base: BaseImage) -> str:
    """The key's path: from the directory of the base when the store has it, else as it is."""
    entry = base.path.parent
    return (
        os.path.relpath(base.ssh_key, entry) if base.ssh_key.is_relative_to(_store_of(entry)) else str(base.ssh_key)
    )


def _read_base(directory: Path) -> BaseImage:
    base, named = read_base(directory / RECORD), read_record(directory / RECORD, BaseImage).path
    if named.is_absolute() and named != directory / IMAGE:
        # Records once named everything from the root: whatever the store had then, it has now.
        then, now = _store_of(named.parent), _store_of(directory)
        key = now / base.ssh_key.relative_to(then) if base.ssh_key.is_relative_to(then) else base.ssh_key
        base = replace(base, path=directory / named.name, ssh_key=key)
    if base.identity != directory.name or base.path != directory / IMAGE:
        wrong = base.identity if base.identity != directory.name else base.path
        raise InfrastructureError(f"its record says {wrong}")
    if not base.path.is_file():
        raise InfrastructureError(f"there is no {IMAGE}")
    return base


def _store_of(entry: Path) -> Path:
    return entry.parent.parent


def _time(stamp: Path, otherwise: float) -> float:
    return stamp.stat().st_mtime if stamp.exists() else otherwise


def _reason(error: OSError | DistgateError) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no {Path(error.filename).name}"
    return error.message if isinstance(error, DistgateError) else str(error)


def store_identity(root: Path) -> str:
    """The name that the store in ``root`` was given when somebody first asked; hosts that share it share the name."""
    path = root / "identity"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=root, prefix=".identity-") as scratch, suppress(FileExistsError):
            draft = Path(scratch) / "identity"
            draft.write_text(uuid4().hex)
            os.link(draft, path)  # whole or not at all, and only by the first
    return path.read_text()
