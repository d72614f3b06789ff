"""results.yaml as tmt writes it for a plan, read into the same outcomes as those of the Standard Test Interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

from distgate.errors import TestsError
from distgate.suite_results import Result, TestOutcome, inside
from distgate.yaml_reading import Unreadable, read_yaml

RESULTS = "results.yaml"
_LIMIT = 16 << 20  # a plan may have thousands of tests, each some thirty lines


def read_tmt_results(artifacts: Path) -> tuple[TestOutcome, ...] | None:
    """The tests of a plan in the order in which they ran, or None when there is no results.yaml.

    Raises TestsError, with line and column where they are known, for what tmt would not have written.
    """
    path = artifacts / RESULTS
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise TestsError(f"{RESULTS}: it is no plain file")
    if not path.exists():
        return None
    try:
        listed = read_yaml(path, limit=_LIMIT)
    except Unreadable as broken:
        raise TestsError(f"{RESULTS} {broken}") from broken
    if not isinstance(listed, list | None):
        raise TestsError(f"{RESULTS}: it is not a list of results")
    numbered = [(_serial(entry, number), _outcome(entry, number)) for number, entry in enumerate(listed or [], 1)]
    return tuple(outcome for _, outcome in sorted(numbered, key=lambda pair: pair[0]))


def _outcome(entry: Any, number: int) -> TestOutcome:
    if not isinstance(entry, dict):
        raise TestsError(f"{RESULTS}: result {number} is not a mapping")
    word = entry.get("result")
    if word not in get_args(Result):
        raise TestsError(f"{RESULTS}: result {number} says {word!r}, not {', '.join(get_args(Result))}")
    logs = entry.get("log")
    return TestOutcome(
        name=str(entry.get("name") or f"test {number}"),
        result=cast(Result, word),
        logs=inside(str(log) for log in logs) if isinstance(logs, list) else (),
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
    said = [f"check {check.get('name')}: {', '.join(_words(check)) or check.get('result')}" for check in failed]
    return [*_words(entry), *said]


def _words(entry: dict[Any, Any]) -> list[str]:
    note = entry.get("note")
    return [str(line) for line in (note if isinstance(note, list) else [note]) if line]


def _serial(entry: Any, number: int) -> int:
    serial = entry.get("serial-number") if isinstance(entry, dict) else None
    return serial if isinstance(serial, int) else number
