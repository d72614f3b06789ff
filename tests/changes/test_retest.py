"""Which packages are tested again, why the others are not, and when each run begins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from distgate.changes.retest import (
    Candidate,
    CommitFacts,
    LastRun,
    RetestFilter,
    choose,
    offset_of,
    packages_of,
    rows_of,
    sentence_of,
    window_key,
)

START = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)
NOW = START.timestamp()
DAY = 86400
REV, OLD = "a" * 40, "b" * 40
TESTED, UNTESTED = CommitFacts(True, NOW - 2 * DAY), CommitFacts(False, NOW - 40 * DAY)

NAMES: list[tuple[str, dict[str, object], list[str]]] = [
    ("a list names packages, known or not", {"packages": ["zsh", "bash"]}, ["bash", "zsh"]),
    ("a pattern picks from those that are known", {"packages": ["python-*"]}, ["python-attrs", "python-six"]),
    ("both together", {"packages": ["zsh", "python-s?x"]}, ["python-six", "zsh"]),
    ("everything but", {"exclude": ["python-*"]}, ["bash"]),
    ("an exclusion beats a name", {"packages": ["bash", "zsh"], "exclude": ["bash"]}, ["zsh"]),
]


@pytest.mark.parametrize(("wish", "found"), [case[1:] for case in NAMES], ids=[case[0] for case in NAMES])
def test_a_wish_names_packages(wish: dict[str, object], found: list[str]) -> None:
    assert packages_of(RetestFilter.model_validate(wish), {"bash", "python-six", "python-attrs"}) == found


#: The wish beyond its defaults, the candidate, and why it is tested ("+") or not ("-").
CASES: list[tuple[dict[str, object], Candidate, str]] = [
    ({}, Candidate("x", REV), "+never tested"),
    ({}, Candidate("x", "", problem="it has no branch rawhide"), "-it has no branch rawhide"),
    ({}, Candidate("x", REV, last=LastRun(REV, "SUCCESS", NOW - DAY)), "-SUCCESS on this commit, 1.0 days ago"),
    ({}, Candidate("x", REV, last=LastRun(REV, "FAILURE", NOW - DAY)), "-FAILURE on this commit, 1.0 days ago"),
    ({}, Candidate("x", REV, last=LastRun(REV, "ABORTED", NOW - DAY)), "+last: ABORTED on this commit"),
    (
        {},
        Candidate("x", REV, last=LastRun(REV, "SUCCESS", NOW - 8 * DAY)),
        "+last: SUCCESS on this commit, 2026-11-14",
    ),
    ({}, Candidate("x", REV, last=LastRun(OLD, "SUCCESS", NOW - DAY)), "+last: SUCCESS on bbbbbbbbbb"),
    ({}, Candidate("x", REV, last=LastRun(REV, "SUCCESS", None)), "-a run of it is under way"),
    ({"fresh_days": 0}, Candidate("x", REV, last=LastRun(REV, "SUCCESS", NOW - 60)), "+last: SUCCESS"),
    ({"has_tests": True}, Candidate("x", REV, facts=TESTED), "+never tested"),
    ({"has_tests": True}, Candidate("x", REV, facts=UNTESTED), "-it has no tests"),
    ({"has_tests": False}, Candidate("x", REV, facts=TESTED), "-it has tests"),
    ({"has_tests": True}, Candidate("x", REV), "-its latest commit could not be looked at"),
    ({"changed_since": START - timedelta(days=7)}, Candidate("x", REV, facts=TESTED), "+never tested"),
    ({"changed_since": "2026-11-15"}, Candidate("x", REV, facts=UNTESTED), "-not changed since 2026-11-15: 2026-10"),
    ({"last_verdict": ["FAILURE"]}, Candidate("x", REV, last=LastRun(OLD, "FAILURE", NOW - DAY)), "+last: FAILURE"),
    (
        {"last_verdict": ["FAILURE"]},
        Candidate("x", REV, last=LastRun(OLD, "SUCCESS", NOW)),
        "-its last verdict is SUCC",
    ),
    ({"last_verdict": ["FAILURE"]}, Candidate("x", REV), "-its last verdict is untested"),
    ({"last_verdict": ["untested", "FAILURE"]}, Candidate("x", REV), "+never tested"),
]


@pytest.mark.parametrize(("wish", "candidate", "said"), CASES, ids=[case[2] for case in CASES])
def test_a_package_is_tested_again_or_it_is_said_why_not(
    wish: dict[str, object], candidate: Candidate, said: str
) -> None:
    [choice] = choose(RetestFilter.model_validate(wish), [candidate], START)
    assert ("+" if choice.at else "-") + choice.reason[: len(said) - 1] == said


def test_runs_are_spread_over_the_window_and_always_begin_at_the_same_time_of_it() -> None:
    candidates = [Candidate(f"package-{number}", REV) for number in range(400)]
    choices = choose(RetestFilter(window_minutes=240), candidates, START)
    moments = [one.at for one in choices if one.at]
    assert len(moments) == 400
    assert moments == sorted(moments)
    hours = [
        sum(START + timedelta(hours=n) <= one < START + timedelta(hours=n + 1) for one in moments) for n in range(4)
    ]
    assert sum(hours) == 400
    assert min(hours) > 70
    assert offset_of("bash", 240) == offset_of("bash", 240)
    assert offset_of("bash", 0) == timedelta(0)
    again = choose(RetestFilter(window_minutes=240), candidates[:1], START + timedelta(days=1))
    assert again[0].at == next(one.at for one in choices if one.repo == "package-0" and one.at) + timedelta(days=1)


def test_no_more_than_the_most_are_started_and_the_rest_is_told() -> None:
    choices = choose(RetestFilter(most=2), [Candidate(f"p{number}", REV) for number in range(5)], START)
    assert [bool(one.at) for one in choices] == [True, True, False, False, False]
    assert choices[-1].reason == "2 runs are enough for once"
    assert sentence_of(choices).startswith("2 of 5 packages are tested again, from 2026-11-22")
    assert set(rows_of(choices)[0]) == {"package", "commit", "starts (UTC)", "why"}


def test_a_window_that_is_planned_twice_has_one_run_of_each_commit() -> None:
    [choice] = choose(RetestFilter(), [Candidate("bash", REV)], START)
    key = window_key(choice, START, 360)
    assert key == window_key(choice, START + timedelta(minutes=5), 360)
    assert key != window_key(choice, START + timedelta(days=1), 360)
    [newer] = choose(RetestFilter(), [Candidate("bash", OLD)], START)
    assert key != window_key(newer, START, 360)


@pytest.mark.parametrize("wrong", [{"package": ["x"]}, {"last_verdict": ["GREEN"]}, {"packages": []}, {"most": 0}])
def test_a_wish_with_a_mistake_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RetestFilter.model_validate(wrong)
