"""The results of a test suite: results.yml and test.log of the Standard Test Interface, results.yaml of tmt.

Code under test wrote them, so links are not followed, sizes are bounded and nothing is executed.

There may be several results.yml: beside the one of the suite, one in each directory of the artifacts (a playbook that
keeps its tests apart). And one file may hold several: older tools put them together by appending text, which leaves
several documents, or several keys named results. All of them are read as one list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import yaml

from distgate.errors import TestsError
from distgate.files import open_plain
from distgate.untrusted_yaml import Unreadable, read_yaml

#: The first three are the Standard Test Interface's; tmt knows them all.
#: Bytes of the end of a log that are judged.
LOG_END = 1 << 18
Result = Literal["pass", "fail", "error", "warn", "info", "skip", "pending"]

RESULTS = "results.yml"
LOG = "test.log"
TMT_RESULTS = "results.yaml"
_LIMIT = 4 << 20  # bytes of all results.yml together; reading YAML takes half a minute for each MiB on a slow host
_TMT_LIMIT = 4 << 20  # bytes: a plan may have thousands of tests, each some thirty lines
_MOST_FILES = 100  # files of results that are merged
_MOST_LINES = 20_000  # tests of a log that are listed of each kind, good ones and bad ones
_LONGEST_LINE = 1 << 12  # bytes of a line of the log that can name a test
_LONGEST_NAME = 200
_LONGEST_NOTE = 500
_LINE = re.compile(r"(PASS|FAIL|ERROR)\b[:\s]*(.*)")


@dataclass(frozen=True)
class TestOutcome:
    """One test of a suite; ``logs`` are paths relative to the artifacts directory, the main one first.

    ``note`` is a note of the tool that ran it, such as the deadline that it missed.
    """

    __test__ = False  # not a pytest class

    name: str
    result: Result
    logs: tuple[str, ...] = ()
    note: str = ""


class _Malformed(Exception):
    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        self.problem = problem
        self.where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""

    def in_file(self, name: str) -> TestsError:
        return TestsError(
            f"{name}{self.where}: {self.problem}", hint="the Standard Test Interface says what the file may hold"
        )


def read_results(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests that all results.yml list together, or None when there is no such file.

    Raises TestsError, with file, line and column, for a file that the Standard Test Interface does not allow.
    """
    files = [name for name in _result_files(artifacts) if os.path.lexists(artifacts / name)]
    if len(files) > _MOST_FILES:
        raise TestsError(f"there are {len(files)} files {RESULTS}, more than the {_MOST_FILES} that are read")
    merged: list[TestOutcome] = []
    remaining = _LIMIT
    for name in files:
        outcomes, size = _read_file(artifacts, name, remaining)
        merged += outcomes
        remaining -= size
    return tuple(merged) if files else None


def _result_files(artifacts: Path) -> list[str]:
    try:
        with os.scandir(artifacts) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        folders = []
    return [RESULTS, *(f"{folder}/{RESULTS}" for folder in folders)]


def _read_file(artifacts: Path, name: str, limit: int) -> tuple[list[TestOutcome], int]:
    """The tests that one file lists, and its size in bytes, at most ``limit``."""
    try:
        data = _read_plain(artifacts / name, limit)
        if data is None:
            return [], 0
        folder = name.removesuffix(RESULTS)
        documents = list[yaml.Node | None](yaml.compose_all(data.decode("utf-8", "replace"), Loader=yaml.SafeLoader))
        nodes = [entry for root in documents or [None] for listed in _lists(root) for entry in listed.value]
        return [_outcome(node, number, folder) for number, node in enumerate(nodes, 1)], len(data)
    except (yaml.YAMLError, RecursionError) as error:
        problem = _Malformed(getattr(error, "problem", None) or "it is no YAML", _mark_of(error))
        raise problem.in_file(name) from error
    except _Malformed as error:
        raise error.in_file(name) from error


def _lists(root: yaml.Node | None) -> list[yaml.SequenceNode]:
    top = _mapping(root, "a mapping with the key results")
    named = [value for key, value in top.value if isinstance(key, yaml.ScalarNode) and key.value == "results"]
    odd = [value for value in named if not isinstance(value, yaml.SequenceNode)]
    if odd or not named:
        raise _Malformed("results must be a list", (odd or [top])[0].start_mark)
    return named


def read_log(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests that lines such as ``PASS name`` of test.log tell of, or None when there is no such file."""
    try:
        stream = open_plain(artifacts / LOG)
    except OSError:  # a link: it could show any file of this host
        return None
    if stream is None:
        return None
    listed: list[TestOutcome] = []
    remaining = {True: _MOST_LINES, False: _MOST_LINES}  # a flood of one kind must not hide the other
    with stream:
        for line in _lines(stream):
            match = _LINE.match(line)
            if match and remaining[match[1] == "PASS"]:
                remaining[match[1] == "PASS"] -= 1
                listed.append(TestOutcome(_named(match[2], "(unnamed)"), cast(Result, match[1].lower()), (LOG,)))
    return tuple(listed)


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Each line's beginning. The log is read to its end, whatever its size: a failure may be told last."""
    begins = True
    while data := stream.readline(_LONGEST_LINE):
        if begins:
            yield data.decode("utf-8", "replace")
        begins = data.endswith(b"\n")


def _read_plain(path: Path, limit: int) -> bytes | None:
    """The content of such a file. Raises _Malformed for a link or a longer file."""
    try:
        stream = open_plain(path)
    except OSError as error:  # a link: it could show any file of this host
        if not isinstance(error, FileNotFoundError):
            raise _Malformed("it is a link or cannot be read", None) from error
        return None
    if stream is None:
        return None
    with stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise _Malformed(f"all {RESULTS} together are longer than {_LIMIT} bytes", None)
    return data


def _outcome(node: yaml.Node, number: int, folder: str) -> TestOutcome:
    entry = _mapping(node, "each result must be a mapping")
    result_node = _field(entry, "result")
    result = result_node.value.strip().lower() if isinstance(result_node, yaml.ScalarNode) else ""
    if result not in ("pass", "fail", "error"):
        raise _Malformed("result must be pass, fail or error", (result_node or node).start_mark)
    test = _field(entry, "test")
    name = _named(test.value if isinstance(test, yaml.ScalarNode) else "", f"test {number}")
    return TestOutcome(name, cast(Result, result), _logs(_field(entry, "logs"), folder))


def _named(name: str, otherwise: str) -> str:
    """A test's name, no longer than people read."""
    stripped = name.strip()
    return (f"{stripped[:_LONGEST_NAME]}..." if len(stripped) > _LONGEST_NAME else stripped) or otherwise


def _logs(node: yaml.Node | None, folder: str) -> tuple[str, ...]:
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
    named = [entry.value for entry in entries if isinstance(entry, yaml.ScalarNode)]
    return inside(f"{folder}{name}" if not name.startswith("/") else name for name in named if name)


def inside(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that stay inside the artifacts directory: only these can be linked to."""
    return tuple(name for name in names if name and not name.startswith("/") and ".." not in Path(name).parts)


def _mapping(node: yaml.Node | None, expected: str) -> yaml.MappingNode:
    if not isinstance(node, yaml.MappingNode):
        raise _Malformed(expected if node else "it is empty", node.start_mark if node else None)
    return node


def _field(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    pairs = [(name.value, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]
    values = [value for name, value in pairs if name == key]
    if len(values) > 1:  # which one counts cannot be known
        raise _Malformed(f"the key {key} is there twice", values[1].start_mark)
    return values[0] if values else None


def _mark_of(broken: BaseException) -> yaml.Mark | None:
    return getattr(broken, "problem_mark", None) or getattr(broken, "context_mark", None)


def read_tmt_results(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests of a plan in the order in which they ran, or None when there is no results.yaml.

    Raises TestsError, with line and column where they are known, for what tmt would not have written.
    """
    path = artifacts / TMT_RESULTS
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise TestsError(f"{TMT_RESULTS}: it is no plain file")
    if not path.exists():
        return None
    try:
        listed = read_yaml(path, limit=_TMT_LIMIT)
    except Unreadable as error:
        raise TestsError(f"{TMT_RESULTS} {error}") from error
    if not isinstance(listed, list | None):
        raise TestsError(f"{TMT_RESULTS}: it is not a list of results")
    numbered = [(_serial(entry, number), _tmt_outcome(entry, number)) for number, entry in enumerate(listed or [], 1)]
    return tuple(outcome for _, outcome in sorted(numbered, key=lambda pair: pair[0]))


def _tmt_outcome(entry: Any, number: int) -> TestOutcome:
    if not isinstance(entry, dict):
        raise TestsError(f"{TMT_RESULTS}: result {number} is not a mapping")
    result = entry.get("result")
    if not isinstance(result, str) or result not in get_args(Result):
        shown_result = repr(result[:50]) if isinstance(result, str) else "nothing"
        raise TestsError(f"{TMT_RESULTS}: result {number} says {shown_result}, not {', '.join(get_args(Result))}")
    logs = entry.get("log")
    return TestOutcome(
        name=_text(entry.get("name")) or f"test {number}",
        result=cast(Result, result),
        logs=inside(map(_text, logs)) if isinstance(logs, list) else (),
        note="; ".join(_notes(entry)),
    )


def _notes(entry: dict[Any, Any]) -> list[str]:
    """tmt's notes on the test, and its failed checks (a panic, a denial, the deadline)."""
    checks = entry.get("check")
    failed = [
        check
        for check in (checks if isinstance(checks, list) else [])
        if isinstance(check, dict) and check.get("result") not in ("pass", "info", "skip")
    ]
    failed_checks = [
        f"check {_text(check.get('name'))}: {', '.join(_words(check)) or _text(check.get('result'))}"
        for check in failed
    ]
    return [*_words(entry), *failed_checks]


def _words(entry: dict[Any, Any]) -> list[str]:
    note = entry.get("note")
    return [text for line in (note if isinstance(note, list) else [note]) if (text := _text(line))]


def _text(value: Any) -> str:
    """A string, cut at a length that people read; empty for anything else, whose text could be endless."""
    return value[:_LONGEST_NOTE] if isinstance(value, str) else ""


def _serial(entry: Any, number: int) -> int:
    serial = entry.get("serial-number") if isinstance(entry, dict) else None
    return serial if isinstance(serial, int) else number
