"""Blame on red: three runs of a suite and what they mean."""

import pytest

from distgate.testing.reruns import explain
from distgate.testing.results import TestOutcome
from distgate.testing.verdict import SuiteVerdict, Verdict


def ran(verdict: Verdict = "FAIL", *failing: str, passing: tuple[str, ...] = ()) -> SuiteVerdict:
    tests = [TestOutcome(name, "fail") for name in failing] + [TestOutcome(name, "pass") for name in passing]
    return SuiteVerdict("tests.yml", verdict, None, tuple(tests), "what was seen")


BROKEN = SuiteVerdict("tests.yml", "ERROR", "infrastructure", (), "the guest could not be reached")
MALFORMED = SuiteVerdict("tests.yml", "ERROR", "tests", (), "results.yml is no YAML")
FAIL, PASS = ran("FAIL", "a"), ran("PASS", passing=("a", "b"))

CASES = [
    ("passes at the second try", FAIL, PASS, PASS, (), "flaky", "a failed at first and it passed"),
    ("passes at the second try, whatever the base says", FAIL, PASS, FAIL, (), "flaky", "on the same image"),
    ("another test fails each time", ran("FAIL", "a"), ran("FAIL", "b"), PASS, (), "flaky", "b failed on the same"),
    ("the base passes", FAIL, FAIL, PASS, (), "fails only with it", "not without it: a"),
    ("the base fails, too", FAIL, FAIL, FAIL, (), "fails with and without the change", "once without it: a"),
    (
        "one is old, one is new",
        ran("FAIL", "a", "b"),
        ran("FAIL", "a", "b"),
        ran("FAIL", "b", passing=("a",)),
        (),
        "fails only with it",
        "not without it: a; with and without it: b",
    ),
    (
        "what failed once is left out",
        ran("FAIL", "a", "b"),
        ran("FAIL", "a"),
        ran("FAIL", "a"),
        (),
        "fails with and without the change",
        "once without it: a",
    ),
    ("the base has no such package", FAIL, FAIL, None, ("dos2unix",), "cannot be told", "has no dos2unix"),
    ("flaky needs no base", FAIL, PASS, None, ("dos2unix",), "flaky", "on the same image"),
    ("the base was not tried", FAIL, FAIL, None, (), "cannot be told", "could not be run without"),
    ("the base broke on our side", FAIL, FAIL, BROKEN, (), "cannot be told", "could not be reached"),
    ("the second run broke on our side", FAIL, BROKEN, PASS, (), "cannot be told", "broke on our side"),
    (
        "another test stops the base's run before",
        FAIL,
        FAIL,
        ran("FAIL", "setup"),
        (),
        "cannot be told",
        "setup failed",
    ),
    ("a suite that names no test", MALFORMED, MALFORMED, PASS, (), "fails only with it", "tests.yml"),
    (
        "a suite that cannot run anywhere",
        MALFORMED,
        MALFORMED,
        MALFORMED,
        (),
        "fails with and without the change",
        "",
    ),
    ("the base passes without naming tests", FAIL, FAIL, ran("PASS"), (), "fails only with it", "a"),
]


@pytest.mark.parametrize(
    ("first", "again", "without", "absent", "words", "evidence"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_three_runs_say_where_to_look_first(
    first: SuiteVerdict,
    again: SuiteVerdict,
    without: SuiteVerdict | None,
    absent: tuple[str, ...],
    words: str,
    evidence: str,
) -> None:
    found = explain(first, again, without, absent)
    assert found.finding == words
    assert evidence in found.evidence
