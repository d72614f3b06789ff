"""What the functional stage says about the suites that it ran."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.runners.session import JudgedSuite
from distgate.testing.discovery import Suite
from distgate.testing.results import TestOutcome
from distgate.testing.verdict import SuiteVerdict
from tasks.functional import TestReport

ONE = TestOutcome("one", "pass")
PASS = SuiteVerdict("/plans/ci", "PASS", None, (ONE, ONE), "2 of 2 tests passed")
FAIL = SuiteVerdict("/plans/slow", "FAIL", "package", (), "results.yaml: two (fail)")

SENTENCES: list[tuple[list[SuiteVerdict], str]] = [
    ([PASS], "its tests passed: 2 in 1 suite"),
    ([PASS, PASS], "its tests passed: 4 in 2 suites"),
    ([PASS, FAIL], "its tests did not all pass: /plans/slow: results.yaml: two (fail) (blame: package)"),
    ([], "disable all of its tests here"),
]


@pytest.mark.parametrize(("verdicts", "end"), SENTENCES)
def test_the_report_s_sentence_says_how_many_tests_passed_or_why_none_ran(
    verdicts: list[SuiteVerdict], end: str
) -> None:
    judged = tuple(JudgedSuite(Suite(one.suite), one, Path()) for one in verdicts)
    assert TestReport("SUCCESS", judged).sentence.endswith(end)
