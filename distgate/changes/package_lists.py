"""Package lists: which packages a branch of Atomic Host is made of, one text file per branch.

People write lines, and so does a refresh: its names stand between two marks, and it touches nothing outside of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import write_whole

#: One branch under three names: Rawhide's list may be called after any of them.
RAWHIDE = ("rawhide", "main", "master")
#: Between these lines, which stand alone, is what the last refresh wrote.
BEGIN = "# >>> distgate package-lists refresh: the lines down to <<< are replaced by the next one"
END = "# <<<"
_NEW = """\
# Packages of Atomic Host on {branch}: a name or a shell pattern per line. What you write here stays.

"""


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
    for path in _paths(directory, branch):
        try:
            return PackageList(path, tuple(_patterns(path.read_text(encoding="utf-8"))))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            # Infrastructure, for the message must wait and not be judged without its list.
            raise InfrastructureError(f"cannot read the package list {path}: {error}") from error
    return None


def lists_in(directory: Path) -> dict[str, PackageList]:
    """Every list in ``directory`` by the branch it is called after. InfrastructureError when one cannot be read."""
    lists = ((path.stem, list_for(directory, path.stem)) for path in sorted(directory.glob("*.txt")))
    return {branch: packages for branch, packages in lists if packages is not None}


def branches_refreshed(directory: Path) -> tuple[str, ...]:
    """The branches whose lists were refreshed before, and are to be again; the other ones are people's alone."""
    return tuple(branch for branch, packages in lists_in(directory).items() if refreshed(packages))


def write_list(directory: Path, branch: str, names: Sequence[str], origin: str, now: datetime) -> PackageList:
    """Put ``names`` into the list of a branch in the place of those that were put there before.

    ``origin`` says in the list where they are from. Readers see the old list or the new one. Raises
    ConfigurationError when the marks in the list are not a pair, InfrastructureError when it cannot be written.
    """
    path = next((path for path in _paths(directory, branch) if path.exists()), directory / f"{branch}.txt")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else _NEW.format(branch=branch)
        block = [BEGIN, f"# {now.isoformat(timespec='seconds')}, {origin}", *sorted(set(names)), END]
        _replace(path, _with_block(path, text, block))
    except (OSError, UnicodeDecodeError) as error:
        raise InfrastructureError(f"cannot write the package list {path}: {error}") from error
    return PackageList(path, tuple(_patterns(path.read_text(encoding="utf-8"))))


def refreshed(packages: PackageList) -> str:
    """When the list was refreshed last and from what, as it says itself; empty when people alone wrote it."""
    lines = packages.path.read_text(encoding="utf-8").splitlines()
    first = lines.index(BEGIN) + 1 if BEGIN in lines else len(lines)
    return lines[first].removeprefix("# ") if first < len(lines) else ""


def _with_block(path: Path, text: str, block: Sequence[str]) -> str:
    lines = text.splitlines()
    marks = [number for number, line in enumerate(lines) if line in (BEGIN, END)]
    if not marks:
        return "\n".join([*lines, *block, ""])
    if [lines[number] for number in marks] != [BEGIN, END]:
        raise ConfigurationError(
            f"the package list {path} has marks that are not one pair",
            hint=f"keep one line {BEGIN!r} and, after it, one line {END!r}; or none of either",
        )
    first, last = marks
    return "\n".join([*lines[:first], *block, *lines[last + 1 :], ""])


def _replace(path: Path, text: str) -> None:
    path = path.resolve()  # a link stays one
    write_whole(path, text, mode=path.stat().st_mode & 0o777 if path.exists() else 0o644)


def _paths(directory: Path, branch: str) -> Iterator[Path]:
    yield directory / f"{branch}.txt"
    if branch in RAWHIDE:
        yield from (directory / f"{other}.txt" for other in RAWHIDE if other != branch)


def _patterns(text: str) -> Iterator[str]:
    return filter(None, (line.partition("#")[0].strip() for line in text.splitlines()))
