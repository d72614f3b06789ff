"""Package lists: which packages a branch of Atomic Host is made of, one text file per branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from distgate.errors import InfrastructureError

#: One branch under three names: Rawhide's list may be called after any of them.
RAWHIDE = ("rawhide", "main", "master")


@dataclass(frozen=True)
class PackageList:
    """The patterns of one file, and where it lies."""

    path: Path
    patterns: tuple[str, ...]

    def holds(self, repo: str) -> bool:
        """Whether the list names the package, literally or by a shell pattern."""
        return any(fnmatchcase(repo, pattern) for pattern in self.patterns)


def list_for(directory: Path, branch: str) -> PackageList | None:
    """The list of a branch, ``<branch>.txt`` below ``directory``; None when there is none.

    A line is a name or a shell pattern; blank lines and what follows a # are skipped. Read anew each time, so that a
    list may change under a running intake. InfrastructureError when it is there and cannot be read.
    """
    for path in _places(directory, branch):
        try:
            return PackageList(path, tuple(_patterns(path.read_text(encoding="utf-8"))))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as broken:
            # Infrastructure, for the message must wait and not be judged by a list that nobody could read.
            raise InfrastructureError(f"cannot read the package list {path}: {broken}") from broken
    return None


def _places(directory: Path, branch: str) -> Iterator[Path]:
    yield directory / f"{branch}.txt"
    if branch in RAWHIDE:
        yield from (directory / f"{other}.txt" for other in RAWHIDE if other != branch)


def _patterns(text: str) -> Iterator[str]:
    return filter(None, (line.partition("#")[0].strip() for line in text.splitlines()))
