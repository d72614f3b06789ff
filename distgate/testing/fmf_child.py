"""The process in which fmf reads a tree that strangers wrote, with a bound on its time and its memory.

A key such as ``tag+`` or ``summary~`` can make data grow without bound, and a pattern can be matched for ever.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fmf
from fmf.context import Context, InvalidContext, InvalidRule

from distgate.testing.fmf_plans import MOST_NODES, MOST_SECONDS

_MOST_BYTES = 512 << 20
#: What fmf does not check raises some of Python's own errors: a key that is a number, a list where a mapping belongs.
_ODD = (
    fmf.utils.GeneralError,
    InvalidContext,
    InvalidRule,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def main(tree: Path) -> None:
    """Print the plans of ``tree``, and how many tests it has, as JSON; end with a sentence for what fmf refuses."""
    limits = {resource.RLIMIT_CPU: MOST_SECONDS, resource.RLIMIT_AS: _MOST_BYTES, resource.RLIMIT_CORE: 0}
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    try:
        print(json.dumps(_described(tree)))
    except _ODD as error:
        sys.exit(f"{type(error).__name__}: {error}".replace(f"{tree}/", ""))
    except MemoryError:
        sys.exit("it takes too much memory")


def _described(tree: Path) -> dict[str, Any]:
    top = fmf.Tree(str(tree))
    undecided = _adjust(top)
    nodes = list(top.climb())
    if len(nodes) > MOST_NODES:
        raise fmf.utils.GeneralError(f"it has more than {MOST_NODES} nodes")
    return {
        "plans": list(_plans(tree, nodes, undecided)),
        "tests": sum("test" in node.data for node in nodes),
    }


def _adjust(top: fmf.Tree) -> set[str]:
    """Apply the rules that hold everywhere, as tmt does; the names of the nodes with others."""
    undecided = set()

    def note(node: fmf.Tree, _rule: dict[str, Any], applied: bool | None) -> None:
        if applied is None:
            undecided.add(node.name)

    top.adjust(Context(), case_sensitive=False, decision_callback=note)
    return undecided


def _plans(tree: Path, nodes: list[fmf.Tree], undecided: set[str]) -> Iterator[dict[str, Any]]:
    for node in nodes:
        if "execute" in node.data or "plan" in node.data:
            yield {
                "name": node.name,
                "file": Path(node.sources[-1]).relative_to(tree).as_posix(),
                "enabled": node.data.get("enabled") is not False,
                "adjusted": node.name in undecided,
                "imported": node.get(["plan", "import"]) is not None,
            }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
