"""What a test suite left behind: results.yml and test.log of the Standard Test Interface, read with suspicion.

Both were written by code under test, so links are not followed, sizes are bounded and nothing is executed.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import yaml

from distgate.errors import TestsError

Result = Literal["pass", "fail", "error"]

RESULTS = "results.yml"
LOG = "test.log"
_LIMIT = 4 << 20  # bytes that are read of either file
_LINE = re.compile(r"^(PASS|FAIL|ERROR)\b[:\s]*(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class TestOutcome:
    """One test of a suite; ``logs`` are paths relative to the artifacts directory, the main one first."""

    __test__ = False  # not a pytest class

    name: str
    result: Result
    logs: tuple[str, ...] = ()


def read_results(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests that results.yml lists, or None when there is no such file.

    Raises TestsError, with line and column, for a file that the Standard Test Interface does not allow.
    """
    text = _read(artifacts / RESULTS, refuse_links=True)
    if text is None:
        return None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as broken:
        raise _malformed(getattr(broken, "problem", None) or "it is no YAML", _mark_of(broken)) from broken
    listed = _field(_mapping(root, "a mapping with the key results"), "results")
    if not isinstance(listed, yaml.SequenceNode):
        raise _malformed("results must be a list", (listed or root).start_mark if root else None)
    return tuple(_outcome(node, number) for number, node in enumerate(listed.value, 1))


def read_log(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests that lines such as ``PASS name`` of test.log tell of, or None when there is no such file."""
    text = _read(artifacts / LOG, refuse_links=False)
    if text is None:
        return None
    return tuple(
        TestOutcome(name.strip() or "(unnamed)", cast(Result, word.lower()), (LOG,))
        for word, name in _LINE.findall(text)
    )


def _read(path: Path, *, refuse_links: bool) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as refused:  # a link: it could show any file of this host
        if refuse_links:
            raise _malformed("it is a link or cannot be read", None) from refused
        return None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        data = stream.read(_LIMIT + 1)
    if len(data) > _LIMIT and refuse_links:
        raise _malformed(f"it is longer than {_LIMIT} bytes", None)
    return data[:_LIMIT].decode("utf-8", "replace")


def _outcome(node: yaml.Node, number: int) -> TestOutcome:
    entry = _mapping(node, "each result must be a mapping")
    said = _field(entry, "result")
    word = said.value.strip().lower() if isinstance(said, yaml.ScalarNode) else ""
    if word not in ("pass", "fail", "error"):
        raise _malformed("result must be pass, fail or error", (said or node).start_mark)
    test = _field(entry, "test")
    name = test.value if isinstance(test, yaml.ScalarNode) and test.value else f"test {number}"
    return TestOutcome(name, cast(Result, word), _logs(_field(entry, "logs")))


def _logs(node: yaml.Node | None) -> tuple[str, ...]:
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
    named = [entry.value for entry in entries if isinstance(entry, yaml.ScalarNode)]
    # Only what stays inside the artifacts directory can be linked to.
    return tuple(name for name in named if name and not name.startswith("/") and ".." not in Path(name).parts)


def _mapping(node: yaml.Node | None, wanted: str) -> yaml.MappingNode:
    if not isinstance(node, yaml.MappingNode):
        raise _malformed(wanted if node else "it is empty", node.start_mark if node else None)
    return node


def _field(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    pairs = [(name.value, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]
    return next((value for name, value in pairs if name == key), None)


def _mark_of(broken: BaseException) -> yaml.Mark | None:
    return getattr(broken, "problem_mark", None) or getattr(broken, "context_mark", None)


def _malformed(problem: str, mark: yaml.Mark | None) -> TestsError:
    where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""
    return TestsError(f"{RESULTS}{where}: {problem}", hint="the Standard Test Interface says what the file may hold")
