"""What composes a tree, and what a composed tree is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distgate.rpm.diff import PackageChange
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Step


@dataclass(frozen=True)
class ComposedTree:
    """An OSTree commit ``rev`` that was published under ``ref``, with ``parent`` before it.

    ``installed`` was read from the commit's own RPM database, ``changes`` are against the parent's, ``requested`` are
    the packages under test that it was to hold. ``driver`` is what composed it (rpm-ostree, dnf). In bytes: ``size``
    is what its files take unpacked, ``delta_size`` what a client on the parent fetches (0: no static delta).
    """

    ref: str
    rev: str
    version: str
    parent: str | None
    installed: tuple[Nevra, ...]
    changes: tuple[PackageChange, ...]
    requested: tuple[Nevra, ...]
    driver: str
    size: int
    delta_size: int = 0
    signed: bool = False
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class TreeRequest:
    """One commit to compose into the repository ``build``: ``packages`` exactly, from ``under_test``, and everything
    ``also``, with ``tested`` (both directories with repodata) preferred to the distribution at equal versions."""

    build: Path
    ref: str
    version: str
    parent: str | None
    under_test: Path | None = None
    packages: tuple[Nevra, ...] = ()
    tested: Path | None = None
    also: tuple[str, ...] = ()


class TreeComposer(Protocol):
    """Makes an OSTree commit from a treefile and RPMs; what it makes is in no ref."""

    @property
    def name(self) -> str:
        """What it is called in records."""

    def commit(self, request: TreeRequest, scratch: Path, progress: Progress = lambda _line: None) -> str:
        """The new commit's checksum. ``scratch`` is a directory on the file system of the repository.

        Raises PackageError with the solver's or the scriptlet's words when the packages do not go into the tree,
        ConfigurationError for a treefile that it cannot follow, InfrastructureError for everything else.
        """
