"""Playbooks of years ago, changed in a copy of the checkout so that today's ansible-core takes them.

Each change is small, keeps the meaning and every line's number, and is reported with file and line. Other outdated
constructs are refused with their line. docs/isolation.md lists them with the versions that dropped them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

#: Bytes of a playbook at most.
_LIMIT = 1 << 20
_FILES = 500
_TASK_LISTS = ("pre_tasks", "tasks", "post_tasks", "handlers")
_BLOCKS = ("block", "rescue", "always")
_TASK_FILES = ("include", "include_tasks", "import_tasks")
_PLAYBOOKS = ("include", "import_playbook")
#: Modules that had the argument ``warn`` until ansible-core 2.14.
_COMMANDS = ("command", "shell")
_PREFIXES = ("", "ansible.builtin.", "ansible.legacy.")
_WARN = re.compile(r"(^|\s)warn=(?:no|yes|true|false|0|1)(?=\s|$)", re.IGNORECASE)
_ARGUMENTS = re.compile(r"\s\w+=")


class UnsupportedPlaybook(Exception):
    """A construct that current versions of ansible-core do not take and that cannot be changed safely."""


@dataclass(frozen=True, order=True)
class Rewrite:
    """One change: ``path`` is relative to the tree, ``line`` counts from 1."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


@dataclass
class Edit:
    """Replaces the characters from ``start`` to ``end`` of a text."""

    start: int
    end: int
    text: str
    line: int
    what: str


@dataclass
class Reader:
    """Walks over one file's nodes: ``edits`` to make, and ``playbooks`` and ``tasks`` that it brings in by name."""

    text: str
    name: str
    edits: list[Edit] = field(default_factory=list)
    playbooks: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)

    def plays(self, root: yaml.Node | None) -> None:
        """The plays of a playbook."""
        for play in _mappings(root):
            for key, value in play.value:
                keyword = _bare(key)
                if keyword == "include":
                    self._rename(key, "import_playbook", value)
                if keyword in _PLAYBOOKS and isinstance(value, yaml.ScalarNode):
                    self.playbooks.append(value.value)
                elif keyword == "vars" and isinstance(value, yaml.SequenceNode):
                    self._vars(value)
                elif keyword in _TASK_LISTS:
                    self.task_list(value)

    def task_list(self, root: yaml.Node | None) -> None:
        """A list of tasks, blocks included."""
        for task in _mappings(root):
            if id(task) in self._seen:
                continue  # an alias: what it stands for was looked at
            self._seen.add(id(task))
            keys = {_bare(key) for key, _ in task.value}
            for key, value in task.value:
                keyword = _bare(key)
                if keyword == "include":
                    self._rename(key, _including(keys, value), value)
                if keyword in _TASK_FILES:
                    self.tasks += _file_of(value)
                elif keyword in _BLOCKS:
                    self.task_list(value)
                elif keyword in _COMMANDS or (keyword == "args" and keys & set(_COMMANDS)):
                    self._warn(value)

    def changed(self) -> str:
        """The text with its edits made."""
        text = self.text
        for edit in sorted(self.edits, key=lambda edit: edit.start, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return text

    def _edit(self, start: int, end: int, text: str, node: yaml.Node, what: str) -> None:
        self.edits.append(Edit(start, end, text, node.start_mark.line + 1, what))

    def _rename(self, key: yaml.ScalarNode, keyword: str, value: yaml.Node) -> None:
        if isinstance(value, yaml.ScalarNode) and _ARGUMENTS.search(value.value):
            raise self._refusal(key, "include with arguments in its line; write them under vars")
        self._edit(key.start_mark.index, key.end_mark.index, keyword, key, f"include is now {keyword}")

    def _vars(self, listed: yaml.SequenceNode) -> None:
        """``- name: value`` below ``vars`` becomes ``name: value``: a blank in the place of each dash."""
        if not listed.value:
            self._edit(listed.start_mark.index, listed.end_mark.index, "{}", listed, "vars is an empty mapping")
            return
        blocks = [item for item in listed.value if isinstance(item, yaml.MappingNode) and not item.flow_style]
        columns = {item.start_mark.column for item in listed.value}
        if listed.flow_style or len(blocks) != len(listed.value) or len(columns) != 1:
            raise self._refusal(listed, "vars is a list; write it as a mapping")
        for item in blocks:
            dash = self.text.rindex("-", 0, item.start_mark.index)
            self._edit(dash, dash + 1, " ", item, "vars is a mapping, no list")

    def _warn(self, arguments: yaml.Node) -> None:
        if isinstance(arguments, yaml.ScalarNode):
            self._inline_warn(arguments)
        elif isinstance(arguments, yaml.MappingNode):
            for number, (key, value) in enumerate(arguments.value):
                if _bare(key) == "warn":
                    self._drop(arguments, number, key, value)

    def _inline_warn(self, node: yaml.ScalarNode) -> None:
        start, end = node.start_mark.index, node.end_mark.index
        # Only as an argument beside the command: a program may have an argument warn=no of its own.
        first = self.text[start:end].split("\n", 1)[0]
        match = _WARN.search(first) if not node.style else None
        if match:
            separator = match.group(1) if match.start() else ""
            self._edit(start + match.start(), start + match.end(), separator, node, "the argument warn is gone")

    def _drop(self, mapping: yaml.MappingNode, number: int, key: yaml.Node, value: yaml.Node) -> None:
        start, end = key.start_mark.index, value.end_mark.index
        what = "the argument warn is gone"
        if mapping.flow_style and len(mapping.value) > 1:
            if number:
                start = mapping.value[number - 1][1].end_mark.index
            else:
                end = mapping.value[1][0].start_mark.index
            self._edit(start, end, "", key, what)
        elif mapping.flow_style:
            self._edit(start, end, "", key, what)
        elif len(mapping.value) == 1:
            self._edit(start, end, "{}", key, what)
        elif number == 0:
            # The next key may stand alone, but a dash before this one must not lose its mapping.
            self._edit(start, end, "# warn", key, what)
        else:
            self._edit(start, end, "", key, what)

    def _refusal(self, node: yaml.Node, what: str) -> UnsupportedPlaybook:
        return UnsupportedPlaybook(f"{self.name}:{node.start_mark.line + 1}: {what}")


def port_playbook(playbook: Path, tree: Path) -> list[Rewrite]:
    """Change ``playbook`` and the files it brings in, inside ``tree``, in place; the changes, in order.

    Files that are no YAML are left for ansible to complain about. Raises UnsupportedPlaybook, with file and line.
    """
    rewrites: list[Rewrite] = []
    waiting: list[tuple[Path, bool]] = [(playbook, True), *((path, False) for path in _role_files(playbook.parent))]
    seen: set[Path] = set()
    while waiting and len(seen) < _FILES:
        path, holds_plays = waiting.pop(0)
        path = path.resolve()
        if path in seen or not path.is_relative_to(tree.resolve()) or not path.is_file():
            continue
        seen.add(path)
        reader = _read(path, path.relative_to(tree.resolve()).as_posix(), holds_plays)
        if reader is None:
            continue
        if reader.edits:
            path.write_bytes(reader.changed().encode())
            rewrites += [Rewrite(reader.name, edit.line, edit.what) for edit in reader.edits]
        waiting += [(path.parent / name, True) for name in reader.playbooks]
        waiting += [(base / name, False) for name in reader.tasks for base in (path.parent, playbook.parent)]
    return sorted(rewrites)


def _read(path: Path, name: str, holds_plays: bool) -> Reader | None:
    if path.stat().st_size > _LIMIT:
        return None
    try:
        text = path.read_bytes().decode()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    if text.startswith("\ufeff"):
        return None  # the mark counts as a character here and not in the nodes' places
    reader = Reader(text, name)
    if holds_plays:
        reader.plays(root)
    else:
        reader.task_list(root)
    return reader


def _role_files(tests: Path) -> Iterator[Path]:
    for kind in ("tasks", "handlers"):
        for ending in ("yml", "yaml"):
            yield from sorted(tests.glob(f"roles/*/{kind}/*.{ending}"))


def _mappings(root: yaml.Node | None) -> list[yaml.MappingNode]:
    items = root.value if isinstance(root, yaml.SequenceNode) else []
    return [item for item in items if isinstance(item, yaml.MappingNode)]


def _bare(key: yaml.Node) -> str:
    """A key without the name of the collection."""
    name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
    return next((name.removeprefix(prefix) for prefix in _PREFIXES[1:] if name.startswith(prefix)), name)


def _including(keys: set[str], value: yaml.Node) -> str:
    """What ``include`` did: at once, unless the name of the file or a loop was only known at run time."""
    late = isinstance(value, yaml.ScalarNode) and "{{" in value.value
    looped = "loop" in keys or any(key.startswith("with_") for key in keys)
    return "include_tasks" if late or looped else "import_tasks"


def _file_of(value: yaml.Node) -> list[str]:
    if isinstance(value, yaml.MappingNode):
        return [
            named.value for key, named in value.value if _bare(key) == "file" and isinstance(named, yaml.ScalarNode)
        ]
    return [value.value] if isinstance(value, yaml.ScalarNode) else []
