"""The tests of a package, read from its checkout: nothing is executed, nothing is read outside of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distgate.errors import ConfigurationError
from distgate.testing.fmf_plans import FmfTree, Plan, read_tree
from distgate.testing.playbook_tags import TagReader
from distgate.untrusted_yaml import Documents

#: The last is never found: it is a playbook that a site names, whose tasks are the tests.
Kind = Literal["sti", "tmt", "playbook"]

#: The namespace whose repositories are tests themselves: their suites lie at the root.
TESTS_NAMESPACE = "tests"
_PATTERN = "tests*.yml"

#: The tag of suites that are run by default; the Standard Test Interface also knows container and atomic.
CLASSIC = "classic"


@dataclass(frozen=True)
class Suite:
    """One thing to run: a playbook of the Standard Test Interface, or a plan of tmt.

    ``path`` is the file, relative to the checkout; ``name`` is a plan's own name, else the path.
    ``tags`` are all of a playbook's. ``problem`` says why the suite cannot be read, with line and column; such a
    suite is the tests' error and not run. ``note`` holds what only the runner can decide; ``adjusted`` says that tmt
    may disable or enable the plan where it runs.
    """

    path: str
    tags: tuple[str, ...] = ()
    problem: str = ""
    kind: Kind = "sti"
    plan: str = ""
    note: str = ""
    adjusted: bool = False

    @property
    def name(self) -> str:
        return self.plan or self.path

    def as_json(self) -> dict[str, Any]:
        """The suite as ``distgate tests --json`` prints it."""
        fields = {"name": self.name, "path": self.path, "kind": self.kind, "problem": self.problem, "note": self.note}
        return fields | ({"tags": list(self.tags)} if self.kind == "sti" else {})


@dataclass(frozen=True)
class Discovery:
    """The tests of a checkout. ``suites`` are those of its ``kind``; when there are none, ``reason`` says why.

    ``kind`` is None without tests; a kind without suites means tests that select nothing. ``kinds`` lists every
    kind that was found, ``unselected`` the suites of ``kind`` that are not run (another tag, a disabled plan), and
    ``other`` those of the second kind, which would be run if the first one were not there.
    """

    kind: Kind | None
    suites: tuple[Suite, ...]
    reason: str
    kinds: tuple[Kind, ...] = ()
    unselected: tuple[Suite, ...] = ()
    other: tuple[Suite, ...] = ()

    @property
    def to_run(self) -> tuple[Suite, ...]:
        """``suites``, and where a tree of tmt has no plan at all, the playbooks beside it: those use it as data."""
        return self.suites if self.suites or self.unselected else self.other

    def as_json(self) -> dict[str, Any]:
        """The discovery as ``distgate tests --json`` prints it."""
        second = next((kind for kind in self.kinds if kind != self.kind), None)
        return {
            "kind": self.kind,
            "suites": [suite.as_json() for suite in self.suites],
            "reason": self.reason,
            "kinds": list(self.kinds),
            "unselected": [suite.as_json() for suite in self.unselected],
            "other": {"kind": second, "suites": [suite.as_json() for suite in self.other]} if second else None,
        }


def discover(checkout: Path, tag: str = CLASSIC, namespace: str = "rpms") -> Discovery:
    """Find the tests of the package whose commit is checked out in ``checkout``.

    tmt goes before the Standard Test Interface where both are there. Raises ConfigurationError when ``checkout`` is
    no directory that can be read; what is wrong with the tests themselves is in the result.
    """
    if not checkout.is_dir() or not os.access(checkout, os.R_OK | os.X_OK):
        raise ConfigurationError(f"{checkout} is no directory that can be read", hint="name a package's checkout")
    tree = checkout.resolve()
    playbooks = _Playbooks.find(tree, tag, namespace)
    if not _inside(tree, tree / ".fmf" / "version"):
        return playbooks.discovery()
    plans = read_tree(tree)
    suites, disabled = _plans(plans)
    kinds: tuple[Kind, ...] = ("tmt", "sti") if playbooks.every else ("tmt",)
    return Discovery("tmt", suites, _tmt_reason(plans, suites), kinds, disabled, playbooks.selected)


@dataclass(frozen=True)
class _Playbooks:
    """The suites of the Standard Test Interface: all that were found, and those with the tag."""

    every: tuple[Suite, ...]
    selected: tuple[Suite, ...]
    reason: str

    @classmethod
    def find(cls, tree: Path, tag: str, namespace: str) -> _Playbooks:
        suites = _suites(tree, tree if namespace == TESTS_NAMESPACE else tree / "tests")
        selected = tuple(suite for suite in suites if suite.problem or tag in suite.tags)
        return cls(suites, selected, _reason(tree, suites, selected, tag, namespace))

    def discovery(self) -> Discovery:
        rest = tuple(suite for suite in self.every if suite not in self.selected)
        kinds: tuple[Kind, ...] = ("sti",) if self.every else ()
        return Discovery("sti" if self.every else None, self.selected, self.reason, kinds, rest)


def _suites(tree: Path, folder: Path) -> tuple[Suite, ...]:
    if not _inside(tree, folder) or not folder.is_dir():
        return ()
    note = _inventory(tree, folder / "inventory")
    paths = sorted(path for path in folder.glob(_PATTERN) if path.is_symlink() or path.is_file())
    documents = Documents()
    return tuple(_suite(tree, path, note, documents) for path in paths)


def _suite(tree: Path, path: Path, note: str, documents: Documents) -> Suite:
    name = path.relative_to(tree).as_posix()
    if not _inside(tree, path) or not path.is_file():
        return Suite(name, problem=f"{name} is a link that leads out of the checkout, or nowhere")
    reader = TagReader(tree, documents=documents)
    reader.read_playbook(path.resolve())
    return Suite(name, tuple(sorted(reader.tags)), "; ".join(reader.problems), note=note)


def _inventory(tree: Path, path: Path) -> str:
    """A note on the inventory that a package brings: it can be a program, which the runner alone executes."""
    if not path.is_symlink() and not path.exists():
        return ""
    name = path.relative_to(tree).as_posix()
    if not _inside(tree, path):
        return f"{name} is a link that leads out of the checkout, or nowhere"
    if path.is_dir():
        return f"{name} is a directory"
    return f"{name} is a {'program' if path.stat().st_mode & 0o111 else 'file'}"


def _reason(tree: Path, suites: tuple[Suite, ...], selected: tuple[Suite, ...], tag: str, namespace: str) -> str:
    if selected:
        return ""
    where = _PATTERN if namespace == TESTS_NAMESPACE else f"tests/{_PATTERN}"
    if not suites:
        empty = "the directory tests has no playbook, and there is " if (tree / "tests").is_dir() else "there is "
        return f"no tests: {empty}neither .fmf/version nor {where}"
    tags = sorted({suite_tag for suite in suites for suite_tag in suite.tags})
    present = _count(len(suites), "suite")
    return f"nothing selected: {present} there, none has the tag {tag} (tags: {', '.join(tags) or 'none'})"


def _plans(tree: FmfTree) -> tuple[tuple[Suite, ...], tuple[Suite, ...]]:
    """The plans to run, then those that are switched off. A file that cannot be read may hold any plan."""
    broken = tuple(Suite(file, problem=problem, kind="tmt") for file, problem in tree.problems)
    suites = [(plan, _suite_of(plan)) for plan in tree.plans]
    chosen = tuple(suite for plan, suite in suites if plan.enabled or plan.adjusted)
    return broken + chosen, tuple(suite for _, suite in suites if suite not in chosen)


def _suite_of(plan: Plan) -> Suite:
    return Suite(plan.file, kind="tmt", plan=plan.name, note=_note(plan), adjusted=plan.adjusted)


def _note(plan: Plan) -> str:
    notes = (
        (plan.adjusted and plan.enabled, "adjust: tmt may change or disable it where it runs"),
        (plan.adjusted and not plan.enabled, "disabled, unless tmt's adjust enables it where it runs"),
        (plan.imported, "imported from another repository"),
    )
    return "; ".join(text for holds, text in notes if holds)


def _tmt_reason(tree: FmfTree, suites: tuple[Suite, ...]) -> str:
    if suites:
        return ""
    if tree.plans:
        return f"nothing selected: {_count(len(tree.plans), 'plan')} there, none is enabled"
    if tree.tests:
        return f"nothing selected: {_count(tree.tests, 'test')} there, but no plan (a node with the key execute)"
    return "nothing selected: .fmf/version is there, but neither a plan nor a test"


def _count(number: int, noun: str) -> str:
    return f"1 {noun} is" if number == 1 else f"{number} {noun}s are"


def _inside(tree: Path, path: Path) -> bool:
    return path.exists() and path.resolve().is_relative_to(tree)
