"""The results of a run's suites as rows of a table, for a page or a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distgate.plain_text import printable
from distgate.verdict import SuiteVerdict


@dataclass(frozen=True)
class ResultRow:
    """One test, or a suite of which no test is known (``test`` is then empty). All text can be shown as it is.

    ``result`` is a word of TestOutcome.result, or of SuiteVerdict.verdict for a whole suite. ``logs`` are relative
    to the suite's artifacts directory, the main one first.
    """

    suite: str
    test: str
    result: str
    note: str
    logs: tuple[str, ...] = ()


def result_rows(verdicts: Sequence[SuiteVerdict]) -> tuple[ResultRow, ...]:
    """A row for each test, in the order in which they ran; a suite that is no PASS is led by a row of its own."""
    return tuple(row for verdict in verdicts for row in _rows(verdict))


def _rows(verdict: SuiteVerdict) -> list[ResultRow]:
    suite = _shown(verdict.suite)
    tests = [
        ResultRow(suite, _shown(test.name), test.result, _shown(test.note), tuple(map(_shown, test.logs)))
        for test in verdict.tests
    ]
    if tests and verdict.verdict == "PASS":
        return tests
    return [ResultRow(suite, "", verdict.verdict, _shown(verdict.evidence)), *tests]


def _shown(text: str) -> str:
    return printable(text, newlines=False)
