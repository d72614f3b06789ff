"""RPM identities: NEVRA as records, read from headers and never guessed from file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError, PackageError
from distgate.process import run
from distgate.text import printable

#: The query format whose lines ``Nevra.parse`` reads; an absent epoch prints as 0.
QUERY = "%{NAME}|%{EPOCHNUM}|%{VERSION}|%{RELEASE}|%{ARCH}|%{SOURCERPM}\n"

#: Binary packages that are never part of what is under test (notes: test-interfaces, section 6).
_DEBUG = re.compile(r"-debug(info|source)$")


#: What rpmbuild lets a package be called, and its version and release be; a forged header may hold anything.
_WORD = re.compile(r"[A-Za-z0-9_+%{][A-Za-z0-9._+%{}~^-]*")


class NoPackage(PackageError, ValueError):
    """What rpm says of a package is no package's identity: its header was made by hand."""


@dataclass(frozen=True, order=True)
class Nevra:
    """Name, epoch, version, release and architecture of one RPM; ``source_rpm`` is empty for an SRPM."""

    name: str
    epoch: int
    version: str
    release: str
    arch: str
    source_rpm: str = ""

    def __str__(self) -> str:
        epoch = f"{self.epoch}:" if self.epoch else ""
        return f"{self.name}-{epoch}{self.version}-{self.release}.{self.arch}"

    @property
    def nvr(self) -> str:
        return f"{self.name}-{self.version}-{self.release}"

    @property
    def is_source(self) -> bool:
        return self.arch in ("src", "nosrc") or not self.source_rpm

    @classmethod
    def parse(cls, line: str) -> Nevra:
        """Read one line that ``rpm --qf QUERY`` printed. Raises NoPackage for any other, also for names that no
        rpmbuild would take: they become parts of paths, messages and commands."""
        try:
            name, epoch, version, release, arch, source = line.strip().split("|")
            parts = (name, version, release, *([] if arch == "(none)" else [arch]))  # as keys in the database have
            if not all(map(_WORD.fullmatch, parts)):
                raise ValueError("a name that no package may have")
            return cls(name, int(epoch), version, release, arch, "" if source == "(none)" else source)
        except ValueError as error:
            raise NoPackage(
                f"rpm calls a package {printable(line, newlines=False)[:200]!r}, which no package may be called",
                hint="the header of an RPM was not made by rpmbuild",
                evidence=printable(line)[:2000],
            ) from error


@dataclass(frozen=True)
class RpmFile:
    """An RPM on disk and the identity in its header."""

    path: Path
    nevra: Nevra


def read_rpms(paths: list[Path]) -> list[RpmFile]:
    """The identities in the headers of ``paths``, in their order; no database or signature is looked at."""
    if not paths:
        return []
    completed = run(
        ["rpm", "-qp", "--nosignature", "--nodigest", "--qf", QUERY, *paths],
        timeout=60,
        split_errors=True,
        error=InfrastructureError,
        hint="a downloaded RPM cannot be read",
    )
    lines = [line for line in completed.output.splitlines() if line]
    if len(lines) > len(paths):
        raise NoPackage("an RPM has a name of several lines", hint="its header was not made by rpmbuild")
    if len(lines) != len(paths):
        raise InfrastructureError(f"rpm described {len(lines)} of {len(paths)} packages", evidence=completed.errors)
    return [RpmFile(path, _of_kind(path, Nevra.parse(line))) for path, line in zip(paths, lines, strict=True)]


def _of_kind(path: Path, nevra: Nevra) -> Nevra:
    # A source RPM's header carries the build host's architecture; only the file name says "src".
    if path.name.endswith((".src.rpm", ".nosrc.rpm")):
        return Nevra(nevra.name, nevra.epoch, nevra.version, nevra.release, "src")
    return nevra


def under_test(rpms: list[RpmFile]) -> list[RpmFile]:
    """The RPMs that a compose installs: binary ones without debuginfo, debugsource and devel packages.

    When only -devel packages were built they are what is under test.
    """
    binary = [rpm for rpm in rpms if not rpm.nevra.is_source and not _DEBUG.search(rpm.nevra.name)]
    return [rpm for rpm in binary if not rpm.nevra.name.endswith("-devel")] or binary
