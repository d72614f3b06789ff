"""What a test suite left behind: results.yml and test.log of the Standard Test Interface, read with suspicion.

Both were written by code under test, so links are not followed, sizes are bounded and nothing is executed.

There may be several results.yml: beside the one of the suite, one in each directory of the artifacts (a playbook that
keeps its tests apart). And one file may hold several: older tools put them together by appending text, which leaves
several documents, or several keys named results. All of them are read as one list.

results.yaml as tmt writes it for a plan, read into the same outcomes as those of the Standard Test Interface.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import yaml

from distgate.errors import TestsError
from distgate.untrusted_yaml import Unreadable, read_yaml

#: The first three are the Standard Test Interface's; tmt knows them all.
#: Bytes of the end of a log that are judged.
LOG_END = 1 << 18
Result = Literal["pass", "fail", "error", "warn", "info", "skip", "pending"]

RESULTS = "results.yml"
LOG = "test.log"
_LIMIT = 4 << 20  # bytes of all results.yml together; reading YAML takes half a minute for each MiB on a slow host
_MOST_FILES = 100  # files of results that are merged
_MOST_LINES = 20_000  # tests of a log that are listed of each kind, good ones and bad ones
_LONGEST_LINE = 1 << 12  # bytes of a line of the log that can name a test
_LONGEST_NAME = 200
_LINE = re.compile(r"(PASS|FAIL|ERROR)\b[:\s]*(.*)")


@dataclass(frozen=True)
class TestOutcome:
    """One test of a suite; ``logs`` are paths relative to the artifacts directory, the main one first.

    ``note`` is what the tool that ran it had to say, such as which deadline it missed.
    """

    __test__ = False  # not a pytest class

    name: str
    result: Result
    logs: tuple[str, ...] = ()
    note: str = ""


def read_results(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests that all results.yml list together, or None when there is no such file.

    Raises TestsError, with file, line and column, for a file that the Standard Test Interface does not allow.
    """
    files = [name for name in _result_files(artifacts) if os.path.lexists(artifacts / name)]
    if len(files) > _MOST_FILES:
        raise TestsError(f"there are {len(files)} files {RESULTS}, more than the {_MOST_FILES} that are read")
    merged: list[TestOutcome] = []
    left = _LIMIT
    for name in files:
        outcomes, size = _read_file(artifacts, name, left)
        merged += outcomes
        left -= size
    return tuple(merged) if files else None


def _result_files(artifacts: Path) -> list[str]:
    try:
        with os.scandir(artifacts) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        folders = []
    return [RESULTS, *(f"{folder}/{RESULTS}" for folder in folders)]


def _read_file(artifacts: Path, name: str, limit: int) -> tuple[list[TestOutcome], int]:
    """What one file lists, and its size in bytes, at most ``limit``."""
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
        stream = _open_plain(artifacts / LOG)
    except OSError:  # a link: it could show any file of this host
        return None
    if stream is None:
        return None
    listed: list[TestOutcome] = []
    room = {True: _MOST_LINES, False: _MOST_LINES}  # a flood of one kind must not hide the other
    with stream:
        for line in _lines(stream):
            found = _LINE.match(line)
            if found and room[found[1] == "PASS"]:
                room[found[1] == "PASS"] -= 1
                listed.append(TestOutcome(_named(found[2], "(unnamed)"), cast(Result, found[1].lower()), (LOG,)))
    return tuple(listed)


def _lines(stream: BinaryIO) -> Iterator[str]:
    """Each line's beginning. The log is read to its end, whatever its size: a failure may be told last."""
    begins = True
    while data := stream.readline(_LONGEST_LINE):
        if begins:
            yield data.decode("utf-8", "replace")
        begins = data.endswith(b"\n")


def _read_plain(path: Path, limit: int) -> bytes | None:
    """A file that a stranger wrote; None when it is no plain one. Raises _Malformed for a link or a longer file."""
    try:
        stream = _open_plain(path)
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


def _open_plain(path: Path) -> BinaryIO | None:
    """Neither follows a link nor waits for the writer of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return stream
    stream.close()
    return None


def _outcome(node: yaml.Node, number: int, folder: str) -> TestOutcome:
    entry = _mapping(node, "each result must be a mapping")
    said = _field(entry, "result")
    word = said.value.strip().lower() if isinstance(said, yaml.ScalarNode) else ""
    if word not in ("pass", "fail", "error"):
        raise _Malformed("result must be pass, fail or error", (said or node).start_mark)
    test = _field(entry, "test")
    name = _named(test.value if isinstance(test, yaml.ScalarNode) else "", f"test {number}")
    return TestOutcome(name, cast(Result, word), _logs(_field(entry, "logs"), folder))


def _named(name: str, otherwise: str) -> str:
    """A test's name, no longer than people read."""
    said = name.strip()
    return (f"{said[:_LONGEST_NAME]}..." if len(said) > _LONGEST_NAME else said) or otherwise


def _logs(node: yaml.Node | None, folder: str) -> tuple[str, ...]:
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node]
    named = [entry.value for entry in entries if isinstance(entry, yaml.ScalarNode)]
    return inside(f"{folder}{name}" if not name.startswith("/") else name for name in named if name)


def inside(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that stay inside the artifacts directory: only these can be linked to."""
    return tuple(name for name in names if name and not name.startswith("/") and ".." not in Path(name).parts)


def _mapping(node: yaml.Node | None, wanted: str) -> yaml.MappingNode:
    if not isinstance(node, yaml.MappingNode):
        raise _Malformed(wanted if node else "it is empty", node.start_mark if node else None)
    return node


def _field(node: yaml.MappingNode, key: str) -> yaml.Node | None:
    pairs = [(name.value, value) for name, value in node.value if isinstance(name, yaml.ScalarNode)]
    found = [value for name, value in pairs if name == key]
    if len(found) > 1:  # which one counts is anybody's guess
        raise _Malformed(f"the key {key} is there twice", found[1].start_mark)
    return found[0] if found else None


def _mark_of(broken: BaseException) -> yaml.Mark | None:
    return getattr(broken, "problem_mark", None) or getattr(broken, "context_mark", None)


class _Malformed(Exception):
    def __init__(self, problem: str, mark: yaml.Mark | None) -> None:
        self.problem = problem
        self.where = f" line {mark.line + 1} column {mark.column + 1}" if mark else ""

    def in_file(self, name: str) -> TestsError:
        return TestsError(
            f"{name}{self.where}: {self.problem}", hint="the Standard Test Interface says what the file may hold"
        )


TMT_RESULTS = "results.yaml"
_TMT_LIMIT = 4 << 20  # a plan may have thousands of tests, each some thirty lines; reading takes time
_LONGEST = 500


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
    word = entry.get("result")
    if not isinstance(word, str) or word not in get_args(Result):
        said = repr(word[:50]) if isinstance(word, str) else "nothing"
        raise TestsError(f"{TMT_RESULTS}: result {number} says {said}, not {', '.join(get_args(Result))}")
    logs = entry.get("log")
    return TestOutcome(
        name=_text(entry.get("name")) or f"test {number}",
        result=cast(Result, word),
        logs=inside(map(_text, logs)) if isinstance(logs, list) else (),
        note="; ".join(_notes(entry)),
    )


def _notes(entry: dict[Any, Any]) -> list[str]:
    """What tmt noted on the test, and which of its checks (a panic, a denial, the deadline) failed."""
    checks = entry.get("check")
    failed = [
        check
        for check in (checks if isinstance(checks, list) else [])
        if isinstance(check, dict) and check.get("result") not in ("pass", "info", "skip")
    ]
    said = [
        f"check {_text(check.get('name'))}: {', '.join(_words(check)) or _text(check.get('result'))}"
        for check in failed
    ]
    return [*_words(entry), *said]


def _words(entry: dict[Any, Any]) -> list[str]:
    note = entry.get("note")
    return [text for line in (note if isinstance(note, list) else [note]) if (text := _text(line))]


def _text(value: Any) -> str:
    """A string as it is, at a length that people read; anything else is nothing: in words it could be endless."""
    return value[:_LONGEST] if isinstance(value, str) else ""


def _serial(entry: Any, number: int) -> int:
    serial = entry.get("serial-number") if isinstance(entry, dict) else None
    return serial if isinstance(serial, int) else number
