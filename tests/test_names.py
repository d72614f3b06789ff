"""Names say the noun: no variable or parameter carries a word that says nothing, and a caught error is ``error``."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("distgate", "flows", "tasks", "blocks", "services", "lab", "messages", "benchmarks")
#: They stand for anything, so they say nothing of what they hold. Fields of records are left out: some are in JSON
#: that earlier runs wrote.
EMPTY_WORDS = {
    "one", "found", "said", "known", "own", "made", "kept", "told", "given", "held", "word", "words", "room",
    "place", "wanted", "asked", "taken", "mine", "came", "left",
}  # fmt: skip


def names_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    fields = {
        id(line.target)
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for line in node.body
        if isinstance(line, ast.AnnAssign)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name and node.name != "error":
            yield node.lineno, f"except ... as {node.name}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_say_what_they_hold(folder: str) -> None:
    empty = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in names_of(ast.parse(path.read_text(encoding="utf-8")))
        if name in EMPTY_WORDS or name.startswith("except")
    ]
    assert empty == []
