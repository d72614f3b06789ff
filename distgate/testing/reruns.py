"""Blame on red: what a failing suite's second run, and one without the change, say about the failure.

The verdict of the run is not touched: a package's failing test is never repeated until it passes. The finding only
says where to look first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from distgate.testing.verdict import SuiteVerdict
from distgate.text import first_of

#: Results that are failures; tests that were skipped or not run say nothing.
_BAD = ("fail", "error", "warn")

Finding = Literal["fails with and without the change", "fails only with it", "flaky", "cannot be told"]


@dataclass(frozen=True)
class Rerun:
    """``finding`` says when the suite fails, ``evidence`` is a sentence with the reason for the finding."""

    finding: Finding
    evidence: str


def explain(
    first: SuiteVerdict, again: SuiteVerdict, without: SuiteVerdict | None, absent: Sequence[str] = ()
) -> Rerun:
    """The finding of three runs of a suite.

    ``first`` did not pass; ``again`` ran on the same image, ``without`` on the base without the change. ``absent``
    are packages under test that the base does not hold in any version: there the suite is not run (``without`` is
    None), for its failure would say nothing.
    """
    if again.retryable:
        return Rerun("cannot be told", f"the second run broke on our side: {again.evidence}")
    same = _steady(first, again)
    if not same:
        return Rerun("flaky", f"{_outcome_of(first)} at first and {_outcome_of(again)} on the same image")
    if absent:
        return Rerun("cannot be told", f"it failed twice; the base without the change has no {', '.join(absent)}")
    if without is None or without.retryable:
        why = f": {without.evidence}" if without else ""
        return Rerun("cannot be told", f"it failed twice; it could not be run without the change{why}")
    return _compare(same, without)


def _steady(first: SuiteVerdict, again: SuiteVerdict) -> frozenset[str]:
    """The tests that failed both times, or the suite itself where none is named."""
    if again.verdict == "PASS" or first.verdict == "PASS":
        return frozenset()
    return _failing(first) & _failing(again)


def _compare(same: frozenset[str], without: SuiteVerdict) -> Rerun:
    old = same & _failing(without)
    new = same - old
    unknown = {name for name in new if not _passes(without, name)}
    if unknown == new and new:
        outcome = f"{_outcome_of(without)}: {without.evidence}"
        return Rerun("cannot be told", f"it failed twice; without the change, {outcome}")
    if new:
        also = f"; with and without it: {_list(old)}" if old else ""
        return Rerun("fails only with it", f"twice with the change, not without it: {_list(new - unknown)}{also}")
    return Rerun("fails with and without the change", f"twice with the change and once without it: {_list(old)}")


def _failing(verdict: SuiteVerdict) -> frozenset[str]:
    named = frozenset(test.name for test in verdict.tests if test.result in _BAD)
    return named or (frozenset() if verdict.verdict == "PASS" else frozenset({verdict.suite}))


def _passes(verdict: SuiteVerdict, name: str) -> bool:
    """Whether this test passed in a run; a suite that could not be run says nothing."""
    if name == verdict.suite:
        return verdict.verdict == "PASS"
    passed = any(test.name == name and test.result == "pass" for test in verdict.tests)
    return passed or (verdict.verdict == "PASS" and not verdict.tests)


def _outcome_of(verdict: SuiteVerdict) -> str:
    if verdict.verdict == "PASS":
        return "it passed"
    named = [test.name for test in verdict.tests if test.result in _BAD]
    return f"{_list(named)} failed" if named else f"it ended as {verdict.verdict}"


def _list(names: Iterable[str]) -> str:
    return first_of(sorted(set(names)))
