"""The plans of an fmf tree, as the library fmf reads them: tmt is not asked and nothing of the tree is executed.

fmf believes what it reads. So it is given a copy with the metadata alone, none of them from outside of the tree, each
file bounded in size and depth, and it reads them in a process of its own (distgate.testing.fmf_child). Rules that
depend on where a plan runs (``adjust``) are tmt's to apply; they are only noted.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgate.process import Completed, run
from distgate.text import printable
from distgate.untrusted_yaml import Documents, Unreadable

SUFFIX = ".fmf"
#: More than any honest tree has: aliases can multiply values and nodes from a few lines.
_MOST_VALUES = 100_000
MOST_NODES = 5000
_DEEPEST = 40  # nested directories, or values within one file
MOST_SECONDS = 20  # of the processor, for fmf
_LEVELS = 200  # of a node's name, within one file
_LONGEST_VERSION = 100  # bytes
_PATIENCE = 300.0  # seconds for MOST_SECONDS of a processor that others use, too
_MOST_OUTPUT = 8 << 20  # bytes
_LONGEST = 300  # characters of fmf's error


@dataclass(frozen=True)
class Plan:
    """One plan: its fmf ``name``, the ``file`` (relative to the tree) it comes from, whether it is ``enabled``.

    ``adjusted`` says that tmt may decide otherwise; ``imported`` that the plan lies in another repository.
    """

    name: str
    file: str
    enabled: bool = True
    adjusted: bool = False
    imported: bool = False


@dataclass(frozen=True)
class FmfTree:
    """What a tree holds: its plans, how many tests, and ``problems``: (file, what is wrong with it)."""

    plans: tuple[Plan, ...]
    tests: int
    problems: tuple[tuple[str, str], ...]


class _TooMuch(Exception):
    """There are more nodes, or levels, than an honest tree has."""


def read_tree(tree: Path) -> FmfTree:
    """The plans below ``tree``, a resolved directory that is never left.

    What is wrong with the tree is in the result: a file that cannot be read is left out, and where fmf refuses the
    rest, the problem is that of ``.fmf``.
    """
    with tempfile.TemporaryDirectory(prefix="distgate-fmf-") as scratch:
        copy = _Copy(tree, Path(scratch).resolve() / "tree")
        try:
            copy.fill()
        except _TooMuch:
            return FmfTree((), 0, ((SUFFIX, f"the tree has more than {MOST_NODES} nodes, or is too deep"),))
        ended = run(
            [sys.executable, "-I", "-m", "distgate.testing.fmf_child", copy.top],
            timeout=_PATIENCE,
            allowed=range(-64, 256),
            split_errors=True,
            most=_MOST_OUTPUT,
        )
    return _read(ended, copy.problems)


def _read(ended: Completed, problems: list[tuple[str, str]]) -> FmfTree:
    if ended.returncode or len(ended.output) >= _MOST_OUTPUT:
        why = printable(ended.errors, newlines=False)[:_LONGEST] or f"it takes more than {MOST_SECONDS} s"
        return FmfTree((), 0, (*problems, (SUFFIX, f"fmf cannot read the tree: {why}")))
    described = json.loads(ended.output)
    return FmfTree(tuple(Plan(**plan) for plan in described["plans"]), described["tests"], tuple(problems))


class _Copy:
    """A directory ``top`` with the metadata of ``tree``: files that fmf looks at, and links to directories inside."""

    def __init__(self, tree: Path, top: Path) -> None:
        self.top = top
        self.problems: list[tuple[str, str]] = []
        self._tree = tree
        self._documents = Documents()
        self._shown: list[Any] = []
        self._walked: set[Path] = set()
        self._linked: list[Path] = []
        self._values = 0
        self._nodes = 0

    def fill(self) -> None:
        """Copy what can be read, and note as problems what cannot. Raises _TooMuch."""
        version, config = (self._tree / SUFFIX / name for name in ("version", "config"))
        target = self._target(version)
        if version.is_file():
            with version.open("rb") as stream:
                target.write_bytes(stream.read(_LONGEST_VERSION))
        if config.exists() or config.is_symlink():
            self._shown = _shown(self._file(config))
        self._linked.append(self._tree)
        while self._linked:
            self._walk(self._linked.pop())

    def _walk(self, top: Path) -> None:
        for folder, below, names in os.walk(top):  # which follows no link
            directory = Path(folder)
            if directory in self._walked:
                below.clear()
                continue
            self._walked.add(directory)
            below[:] = [name for name in below if self._entered(directory / name)]
            for name in sorted(names):
                if name.endswith(SUFFIX) and self._visible(name):
                    self._count(nodes=1, depth=len(directory.relative_to(self._tree).parts))
                    self._file(directory / name)

    def _visible(self, name: str) -> bool:
        return not name.startswith(".") or name in self._shown

    def _entered(self, folder: Path) -> bool:
        """Whether fmf looks into ``folder``: one with .fmf of its own is another tree."""
        if not self._visible(folder.name) or (folder / SUFFIX).is_dir():
            return False
        target = folder.resolve()
        if folder.is_symlink() and target.is_relative_to(self._tree):
            self._target(folder).symlink_to(self._target(target), target_is_directory=True)
            self._linked.append(target)
        return True

    def _file(self, path: Path) -> Any:
        """The document in ``path``, which is copied when fmf may read it."""
        name = path.relative_to(self._tree).as_posix()
        try:
            document = self._checked(path)
        except Unreadable as error:
            self.problems.append((name, f"{name} {error}"))
            return None
        self._target(path).write_bytes(path.read_bytes())
        return document

    def _checked(self, path: Path) -> Any:
        if not path.is_file() or not path.resolve().is_relative_to(self._tree):
            raise Unreadable("is a link that leads out of the checkout, or nowhere")
        document = self._documents.read(path)
        if not isinstance(document, dict | None):
            raise Unreadable("is not a mapping")
        self._measure(document)
        return document

    def _measure(self, document: Any) -> None:
        """Count what is in ``document``, what is behind an alias each time."""
        waiting: list[tuple[Any, int, int]] = [(document, 0, 0)]
        while waiting:
            value, depth, levels = waiting.pop()
            if levels > _LEVELS:
                raise _TooMuch
            if not isinstance(value, dict | list):
                continue
            self._count(values=len(value), depth=depth)
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                nodes = key.count("/") if isinstance(key, str) and key.startswith("/") else 0
                self._count(nodes=nodes)
                waiting.append((inner, depth + 1, levels + nodes))

    def _count(self, *, nodes: int = 0, values: int = 0, depth: int = 0) -> None:
        self._nodes += nodes
        self._values += values
        if depth > _DEEPEST or self._nodes > MOST_NODES or self._values > _MOST_VALUES:
            raise _TooMuch

    def _target(self, path: Path) -> Path:
        """Where the copy has ``path``, with the directories above it."""
        target = self.top / path.relative_to(self._tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def _shown(settings: Any) -> list[Any]:
    """The hidden files and directories that ``.fmf/config`` makes metadata."""
    explore = settings.get("explore") if isinstance(settings, dict) else None
    include = explore.get("include") if isinstance(explore, dict) else None
    return include if isinstance(include, list) else []
