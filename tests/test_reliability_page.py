"""docs/reliability.md names a test for every fault, and every fault test."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/reliability.md"
NAMED = re.findall(r"\| `(test_\w+)` \|$", PAGE.read_text(), re.MULTILINE)


def functions_of(*paths: Path) -> set[str]:
    trees = [ast.parse(path.read_text()) for path in paths]
    found = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {function.name for function in found if function.name.startswith("test_")}


KNOWN = functions_of(*TESTS.rglob("test_*.py"))


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_the_page_names_exists(name: str) -> None:
    assert name in KNOWN


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "---" not in line]
    assert len([row for row in rows if not row.startswith("| fault ")]) == len(NAMED) > 30


def test_every_fault_test_is_on_the_page() -> None:
    fault_tests = functions_of(*TESTS.rglob("test_faults*.py"))
    assert fault_tests - set(NAMED) == {"test_a_flood_is_what_it_says"}
