"""The tags of a playbook, found by reading it and what it imports, inside the checkout only.

ansible-playbook --list-tags needs every role installed and follows links out of the tree; this does neither.
Only static imports are followed: what a dynamic include brings runs only where the include has the tag itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgate.untrusted_yaml import Documents, Unreadable

_TASK_LISTS = ("pre_tasks", "tasks", "post_tasks", "handlers")
_BLOCK_LISTS = ("block", "rescue", "always")
_PLAYBOOKS = ("import_playbook", "include")
_TASK_FILES = ("import_tasks", "include")
_ROLES = ("import_role",)
_COLLECTIONS = ("", "ansible.builtin.", "ansible.legacy.")


@dataclass
class TagReader:
    """Collects ``tags`` and ``problems`` of one suite; ``tree`` is the resolved root that is never left.

    ``documents`` reads the files; one for all suites of a checkout bounds what they take together.
    """

    tree: Path
    tags: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    documents: Documents = field(default_factory=Documents)
    _seen: set[Path] = field(default_factory=set)
    _walked: dict[int, Any] = field(default_factory=dict)

    def read_playbook(self, path: Path) -> None:
        """Read the playbook at ``path`` and everything that it imports."""
        for play in self._entries(path, "plays"):
            self._add_tags(play)
            for name in _named(play, _PLAYBOOKS):
                self._follow(name, [path.parent], self.read_playbook)
            for role in _listed(play.get("roles")):
                self._read_role(role, path)
            for tasks in _TASK_LISTS:
                self._read_tasks(play.get(tasks), path, path)

    def _read_task_file(self, path: Path, playbook: Path) -> None:
        self._read_tasks(list(self._entries(path, "tasks")), path, playbook)

    def _read_tasks(self, tasks: Any, path: Path, playbook: Path) -> None:
        for task in _listed(tasks):
            if not isinstance(task, dict) or id(task) in self._walked:
                continue
            self._walked[id(task)] = task  # an alias can repeat a task a billion times; held, so that its id stays
            self._add_tags(task)
            for block in _BLOCK_LISTS:
                self._read_tasks(task.get(block), path, playbook)
            for name in _named(task, _TASK_FILES):
                bases = [path.parent, playbook.parent]
                self._follow(name, bases, lambda file: self._read_task_file(file, playbook))
            for key in _spellings(_ROLES):
                if key in task:
                    self._read_role(task[key], playbook)

    def _read_role(self, role: Any, playbook: Path) -> None:
        entry = role if isinstance(role, dict) else {"role": role}
        self._add_tags(entry)
        name = entry.get("role") or entry.get("name")
        if isinstance(name, str):
            tasks = playbook.parent / "roles" / name / "tasks" / "main.yml"
            if tasks.exists():  # a role that is installed elsewhere has no say in the tags of this suite
                self._follow(str(tasks), [playbook.parent], lambda file: self._read_task_file(file, playbook))

    def _add_tags(self, entry: dict[Any, Any]) -> None:
        for tag in _listed(entry.get("tags")):
            # ansible splits both "a,b" and the members of a list at commas.
            if isinstance(tag, (str, int)):
                self.tags |= {part.strip() for part in str(tag).split(",")} - {""}

    def _entries(self, path: Path, what: str) -> Iterator[dict[Any, Any]]:
        if path in self._seen:
            return
        self._seen.add(path)
        try:
            content = self.documents.read(path)
        except Unreadable as error:
            self._add_problem(f"{self._relative(path)} {error}")
            return
        if not isinstance(content, list):
            self._add_problem(f"{self._relative(path)} is not a list of {what}")
            return
        yield from (entry for entry in content if isinstance(entry, dict))

    def _follow(self, name: str, bases: list[Path], read: Any) -> None:
        if "{{" in name:
            return  # known only to ansible, at run time
        path = next((base / name for base in bases if (base / name).exists()), None)
        if path is None:
            return  # ansible says so better, when the suite is run
        inside = path.resolve()
        if not inside.is_relative_to(self.tree):
            self._add_problem(f"{name} leads out of the checkout")
        elif inside.is_file():
            read(inside)

    def _add_problem(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def _relative(self, path: Path) -> Path:
        return path.relative_to(self.tree) if path.is_relative_to(self.tree) else Path(path.name)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _spellings(keys: tuple[str, ...]) -> list[str]:
    return [f"{collection}{key}" for key in keys for collection in _COLLECTIONS]


def _named(entry: dict[Any, Any], keys: tuple[str, ...]) -> Iterator[str]:
    """The files that ``entry`` imports, written as ``a.yml``, ``a.yml tags=x`` or ``{file: a.yml}``."""
    for key in _spellings(keys):
        value = entry.get(key)
        if isinstance(value, dict):
            value = value.get("file")
        if isinstance(value, str) and value.strip():
            yield value.strip() if "{{" in value else value.split()[0]
