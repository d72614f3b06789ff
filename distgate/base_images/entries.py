"""What lies in a store of base images: one directory per base, described by the records in it.

``base.json`` is written once, ``qualification.json`` when the base has been booted, and the times of the empty files
``used`` and ``confirmed`` say when it was last asked for and when the repositories last had just this content.

What tells one store of base images from another: an image is of use only where the base below it lies.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from distgate.base_images.qualification import Qualification
from distgate.errors import InfrastructureError
from distgate.files import disk_usage
from distgate.images.base import BaseImage
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
#: The record's line for a package; Nevra.parse reads it.
_FIELDS = ("name", "epoch", "version", "release", "arch", "source_rpm")


@dataclass(frozen=True)
class BaseFacts:
    """What is known of a base once it is built: ``created`` is in seconds of the epoch, ``size`` in bytes on disk."""

    base: BaseImage
    branch: str
    name: str
    kickstart_hash: str
    snapshot: str
    created: float
    size: int
    steps: tuple[Step, ...] = ()
    packages: tuple[Nevra, ...] = field(default=(), repr=False)

    def as_record(self) -> dict[str, Any]:
        """What base.json holds; BaseImage.from_record reads it too.

        What lies in the store is named from the record's own directory, so that the store may have another name for
        somebody else: in a container, or on the next host.
        """
        fields = {name: value for name, value in asdict(self).items() if name not in ("base", "packages")}
        base = {**asdict(self.base), "path": self.base.path.name, "ssh_key": _from_entry(self.base)}
        return {**base, **fields, "packages": [_line(package) for package in self.packages]}

    @classmethod
    def from_record(cls, record: dict[str, Any], directory: Path) -> BaseFacts:
        """The facts in the base.json in ``directory``. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            base=_base_of(record, directory),
            branch=str(record["branch"]),
            name=str(record["name"]),
            kickstart_hash=str(record["kickstart_hash"]),
            snapshot=str(record["snapshot"]),
            created=float(record["created"]),
            size=int(record["size"]),
            steps=tuple(Step(str(step["name"]), float(step["seconds"])) for step in record["steps"]),
            packages=tuple(Nevra.parse(line) for line in record["packages"]),
        )


@dataclass(frozen=True)
class BaseEntry:
    """A base in the store as it is now; times are in seconds of the epoch, ``size`` is all it takes of the disk."""

    directory: Path
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
        facts = BaseFacts.from_record(json.loads((directory / RECORD).read_text()), directory)
        qualification = _qualification(directory / QUALIFICATION)
        _check(directory, facts)
        return BaseEntry(
            directory=directory,
            facts=facts,
            qualification=qualification,
            size=disk_usage(directory),
            used=_time(directory / USED, facts.created),
            confirmed=_time(directory / CONFIRMED, facts.created),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if not directory.exists():
            raise FileNotFoundError(directory) from None
        raise InfrastructureError(
            f"{directory} is no readable base image: {_words(error)}", hint="distgate images prune removes it"
        ) from error


def largest(entries: Iterable[BaseEntry], branch: str, name: str) -> int | None:
    """The size of the newest base of a branch and image, else of any of that image, else None."""
    same: Sequence[BaseEntry] = [entry for entry in entries if entry.facts.name == name]
    closest = [entry for entry in same if entry.facts.branch == branch] or same
    return closest[0].size if closest else None


def _visible(bases: Path) -> Iterator[Path]:
    if bases.is_dir():
        yield from (path for path in sorted(bases.iterdir()) if not path.name.startswith("."))


def _qualification(path: Path) -> Qualification | None:
    return Qualification.from_record(json.loads(path.read_text())) if path.exists() else None


def _check(directory: Path, facts: BaseFacts) -> None:
    if facts.base.identity != directory.name:
        raise ValueError(f"its record says {facts.base.identity}")
    if facts.base.path != directory / IMAGE:
        raise ValueError(f"its record says {facts.base.path}")
    if not facts.base.path.is_file():
        raise ValueError(f"there is no {IMAGE}")


def _from_entry(base: BaseImage) -> str:
    """The key's path: from the directory of the base when the store has it, else as it is."""
    entry = base.path.parent
    return (
        os.path.relpath(base.ssh_key, entry) if base.ssh_key.is_relative_to(_store_of(entry)) else str(base.ssh_key)
    )


def _base_of(record: dict[str, Any], directory: Path) -> BaseImage:
    base, named = BaseImage.from_record(record, directory), Path(record["path"])
    if not named.is_absolute() or named == directory / IMAGE:
        return base
    # Records once named everything from the root: whatever the store had then, it has now.
    then, now = _store_of(named.parent), _store_of(directory)
    key = now / base.ssh_key.relative_to(then) if base.ssh_key.is_relative_to(then) else base.ssh_key
    return replace(base, path=directory / named.name, ssh_key=key)


def _store_of(entry: Path) -> Path:
    return entry.parent.parent


def _time(stamp: Path, otherwise: float) -> float:
    return stamp.stat().st_mtime if stamp.exists() else otherwise


def _line(package: Nevra) -> str:
    return "|".join(str(getattr(package, name)) for name in _FIELDS)


def _words(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"there is no {Path(error.filename).name}"
    if isinstance(error, KeyError):
        return f"its record has no {error}"
    return str(error)


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
