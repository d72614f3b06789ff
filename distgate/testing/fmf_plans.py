"""The plans of an fmf tree, found by reading its files: tmt is not asked and nothing is executed.

Names and inheritance are fmf's: a directory, a file and a key ``/name`` each make a node below, and a node has what
those above it have. Rules that depend on where a plan runs (``adjust``) are tmt's to apply; they are only noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgate.untrusted_yaml import Documents, Unreadable

SUFFIX = ".fmf"
_MAIN = "main.fmf"
#: What no tree has by honest means: aliases can multiply nodes from a few lines.
_MOST_NODES = 5000
_DEEPEST = 40  # nested directories, or keys within one file
_LEVELS = 200  # of a node's name


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


class _TooMany(Exception):
    """There are more nodes, or levels, than an honest tree has."""


@dataclass
class _Node:
    name: str
    file: str = ""
    own: dict[str, Any] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)
    has_metadata: bool = False
    inherits: bool = True
    selected: bool | None = None


def read_tree(tree: Path) -> FmfTree:
    """The plans below ``tree``, a resolved directory that is never left. Raises nothing for what it finds."""
    reader = _Reader(tree)
    top = _Node("")
    try:
        reader.directory(tree, top, 0)
        leaves = list(_leaves(top, {}))
    except _TooMany:
        return FmfTree((), 0, ((SUFFIX, f"the tree has more than {_MOST_NODES} nodes, or is too deep"),))
    plans = tuple(_plan(node, data) for node, data in leaves if "execute" in data or _imports(data))
    return FmfTree(plans, sum("test" in data for _, data in leaves), tuple(reader.problems))


class _Reader:
    def __init__(self, tree: Path) -> None:
        self._tree = tree
        self._seen: set[Path] = set()
        self._documents = Documents()
        self._nodes = 0
        self.problems: list[tuple[str, str]] = []

    def directory(self, folder: Path, node: _Node, depth: int) -> None:
        real = folder.resolve()
        if real in self._seen or not real.is_relative_to(self._tree) or depth > _DEEPEST:
            return
        self._seen.add(real)
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        files = [entry for entry in entries if entry.name.endswith(SUFFIX) and not entry.is_dir()]
        for path in sorted(files, key=lambda path: path.name != _MAIN):  # a directory's own data come first
            self._file(path, node)
        for entry in entries:
            # A directory with .fmf of its own is another tree.
            if entry.is_dir() and not (entry / SUFFIX).is_dir():
                self.directory(entry, self._child(node, entry.name), depth + 1)

    def _file(self, path: Path, node: _Node) -> None:
        name = path.relative_to(self._tree).as_posix()
        try:
            data = self._read(path)
        except Unreadable as error:
            self.problems.append((name, f"{name} {error}"))
            return
        if path.name != _MAIN:
            node = self._child(node, path.name.removesuffix(SUFFIX))
        self._take(node, data, name, 0)

    def _read(self, path: Path) -> dict[Any, Any]:
        if not path.is_file() or not path.resolve().is_relative_to(self._tree):
            raise Unreadable("is a link that leads out of the checkout, or nowhere")
        data = self._documents.read(path)
        if not isinstance(data, dict | None):
            raise Unreadable("is not a mapping")
        return data or {}

    def _take(self, node: _Node, data: dict[Any, Any], file: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise _TooMany
        node.file, node.has_metadata = file, True
        for key, value in data.items():
            word = str(key)
            if word == "/":
                _direct(node, value)
            elif word.startswith("/"):
                below = node
                for part in word.strip("/").split("/"):
                    below = self._child(below, part)
                self._take(below, value if isinstance(value, dict) else {}, file, depth + 1)
            else:
                node.own[word.rstrip("+<-~")] = value

    def _child(self, node: _Node, name: str) -> _Node:
        if name not in node.children:
            self._nodes += 1
            if self._nodes > _MOST_NODES or node.name.count("/") > _LEVELS:
                raise _TooMany
            node.children[name] = _Node(f"{node.name}/{name}", node.file)
        return node.children[name]


def _direct(node: _Node, value: Any) -> None:
    """fmf's directives: whether a node inherits, and whether it counts although it is no leaf."""
    if isinstance(value, dict):
        node.inherits = value.get("inherit") is not False
        node.selected = value.get("select") if isinstance(value.get("select"), bool) else None


def _leaves(node: _Node, above: dict[str, Any]) -> Iterator[tuple[_Node, dict[str, Any]]]:
    data = (above if node.inherits else {}) | node.own
    filled = [child for child in node.children.values() if _is_node(child)]
    counts = node.selected if node.selected is not None else not filled
    if counts and _is_node(node):
        yield node, data
    for child in sorted(filled, key=lambda child: child.name):
        yield from _leaves(child, data)


def _is_node(node: _Node) -> bool:
    """Directories without metadata are none; an empty ``/name:`` is one."""
    return node.has_metadata or any(map(_is_node, node.children.values()))


def _imports(data: dict[str, Any]) -> bool:
    plan = data.get("plan")
    return isinstance(plan, dict) and "import" in plan


def _plan(node: _Node, data: dict[str, Any]) -> Plan:
    return Plan(
        name=node.name or "/",
        file=node.file,
        enabled=data.get("enabled") is not False,
        adjusted=bool(data.get("adjust")),
        imported=_imports(data),
    )
