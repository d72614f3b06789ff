"""results.yaml as tmt writes it for a plan, read into the same outcomes as those of the Standard Test Interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast, get_args

from distgate.errors import TestsError
from distgate.suite_results import Result, TestOutcome, inside
from distgate.yaml_reading import Unreadable, read_yaml

RESULTS = "results.yaml"
_LIMIT = 4 << 20  # a plan may have thousands of tests, each some thirty lines; reading takes time
_LONGEST = 500


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
    if not isinstance(word, str) or word not in get_args(Result):
        said = repr(word[:50]) if isinstance(word, str) else "nothing"
        raise TestsError(f"{RESULTS}: result {number} says {said}, not {', '.join(get_args(Result))}")
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
