"""Which tests a package brings, read from its checkout: nothing is executed, nothing is looked at outside of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distgate.suite_tags import TagReader

Kind = Literal["sti", "tmt"]

#: The namespace whose repositories are tests themselves: their suites lie at the root.
TESTS_NAMESPACE = "tests"
_PATTERN = "tests*.yml"


@dataclass(frozen=True)
class Suite:
    """One playbook of the Standard Test Interface: ``path`` relative to the checkout, all its ``tags``.

    ``problem`` says why it cannot be read, with line and column; such a suite is the tests' error and not run.
    """

    path: str
    tags: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Discovery:
    """The tests of a checkout. ``suites`` are those to run; when there are none, ``reason`` says why.

    ``kind`` is None without tests; a kind without suites means tests that select nothing. ``kinds`` lists every
    kind that was found, ``unselected`` the suites without the tag.
    """

    kind: Kind | None
    suites: tuple[Suite, ...]
    reason: str
    kinds: tuple[Kind, ...] = ()
    unselected: tuple[Suite, ...] = ()


def discover(checkout: Path, tag: str = "classic", namespace: str = "rpms") -> Discovery:
    """Find the tests of the package whose commit is checked out in ``checkout``.

    tmt goes before the Standard Test Interface where both are there; then ``suites`` are those of the latter, as
    a second best, and ``reason`` says so.
    """
    tree = checkout.resolve()
    found = _suites(tree, tree if namespace == TESTS_NAMESPACE else tree / "tests")
    has_tmt = _inside(tree, tree / ".fmf" / "version")
    seen: list[tuple[Kind, bool]] = [("tmt", has_tmt), ("sti", bool(found))]
    kinds = tuple(kind for kind, there in seen if there)
    selected = tuple(suite for suite in found if suite.problem or tag in suite.tags)
    rest = tuple(suite for suite in found if suite not in selected)
    reason = _reason(tree, found, selected, tag, namespace)
    if has_tmt:
        return Discovery("tmt", selected, _tmt_reason(reason, selected), kinds, rest)
    return Discovery("sti" if found else None, selected, reason, kinds, rest)


def _suites(tree: Path, folder: Path) -> tuple[Suite, ...]:
    if not _inside(tree, folder) or not folder.is_dir():
        return ()
    return tuple(_suite(tree, path) for path in sorted(folder.glob(_PATTERN)) if path.is_symlink() or path.is_file())


def _suite(tree: Path, path: Path) -> Suite:
    name = path.relative_to(tree).as_posix()
    if not _inside(tree, path) or not path.is_file():
        return Suite(name, problem=f"{name} is a link that leads out of the checkout, or nowhere")
    reader = TagReader(tree)
    reader.read_playbook(path.resolve())
    return Suite(name, tuple(sorted(reader.tags)), "; ".join(reader.problems))


def _reason(tree: Path, found: tuple[Suite, ...], selected: tuple[Suite, ...], tag: str, namespace: str) -> str:
    if selected:
        return ""
    where = _PATTERN if namespace == TESTS_NAMESPACE else f"tests/{_PATTERN}"
    if not found:
        empty = "the directory tests has no playbook, and there is " if (tree / "tests").is_dir() else "there is "
        return f"no tests: {empty}neither .fmf/version nor {where}"
    tags = sorted({one for suite in found for one in suite.tags})
    count = "1 suite is" if len(found) == 1 else f"{len(found)} suites are"
    return f"nothing selected: {count} there, none has the tag {tag} (tags: {', '.join(tags) or 'none'})"


def _tmt_reason(reason: str, selected: tuple[Suite, ...]) -> str:
    if selected:
        return ".fmf/version says tmt; the suites listed are those of the Standard Test Interface beside it"
    return f".fmf/version says tmt; besides, {reason}" if reason.startswith("nothing") else ".fmf/version says tmt"


def _inside(tree: Path, path: Path) -> bool:
    return path.exists() and path.resolve().is_relative_to(tree)
