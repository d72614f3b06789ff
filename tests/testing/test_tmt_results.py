"""What tmt left means the same as what the Standard Test Interface leaves: a verdict, and who is to blame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.errors import TestsError
from distgate.testing.log_excerpts import last_failure, last_step, tmt_failure
from distgate.testing.results import TestOutcome, read_tmt_results
from distgate.testing.verdict import SuiteRun, judge


def results(*words: str) -> str:
    return "".join(f"- {{name: /tests/{word}, result: {word}, log: [data/{word}.txt]}}\n" for word in words)


@dataclass(frozen=True)
class Case:
    says: str
    verdict: str
    blame: str | None
    evidence: str
    rc: int = 0
    results: str | None = None
    log: str = ""
    output: str = ""
    unreachable: bool = False
    timed_out: bool = False


LOG = "00:14:13     test: /tests/one\n00:14:13     Execute '/tests/one' as a 'shell' test.\n00:14:14 more\n"

CASES = [
    Case("all pass", "PASS", None, "2 of 2 tests passed", results=results("pass", "pass")),
    Case(
        "a pass, a skip, an info",
        "PASS",
        None,
        "1 of 3 tests passed, 1 info, 1 skip",
        results=results("pass", "skip", "info"),
    ),
    Case("a failure", "FAIL", "package", "results.yaml: /tests/fail (fail)", rc=1, results=results("pass", "fail")),
    Case("a failure and an error", "FAIL", "package", "fail", rc=2, results=results("error", "fail")),
    Case("an error", "FAIL", "tests", "/tests/error (error)", rc=2, results=results("pass", "error")),
    Case("a warning", "FAIL", "tests", "/tests/warn (warn)", rc=1, results=results("pass", "warn")),
    Case("all skipped", "NOTHING_RUN", "tests", "all tests were skipped: /tests/skip", rc=4, results=results("skip")),
    Case("no results", "NOTHING_RUN", "tests", "runs no test here", rc=3),
    Case("a result that is none", "ERROR", "infrastructure", "says nothing, not pass", results="- result: [a]\n"),
    Case(
        "a name that multiplies",
        "FAIL",
        "package",
        "results.yaml: test 1 (fail)",
        results="- result: fail\n  name: &a0 [a, a]\n"
        + "".join(f"  k{n}: &a{n} [{f'*a{n - 1}, ' * 9}]\n" for n in range(1, 30))
        + "  name: *a29\n",
    ),
    Case("an empty list", "NOTHING_RUN", "tests", "status 3", rc=3, results="[]\n"),
    Case("an empty file", "NOTHING_RUN", "tests", "status 0", results=""),
    Case(
        "a plan that is refused",
        "ERROR",
        "tests",
        "prepare the plan: Unsupported",
        rc=2,
        output="\nUnsupported x\n\n",
    ),
    Case("a plan that adjust disabled", "NOTHING_RUN", "tests", "runs no test", rc=2, output="No plans found.\n"),
    Case("a crash of tmt", "ERROR", "infrastructure", "status 139", rc=139),
    Case(
        "tests that were not run",
        "ERROR",
        "tests",
        "; not run: /tests/pending",
        rc=2,
        results=results("pass", "pending"),
    ),
    Case("status 2 although all passed", "ERROR", "tests", "status 2 although", rc=2, results=results("pass")),
    Case(
        "the guest was lost",
        "ERROR",
        "infrastructure",
        "not be reached",
        rc=2,
        unreachable=True,
        results=results("pass", "pending"),
    ),
    Case(
        "the guest was lost, half a file",
        "ERROR",
        "infrastructure",
        "not be reached",
        rc=2,
        unreachable=True,
        results="- {",
    ),
    Case(
        "late",
        "FAIL",
        "tests",
        "1 of 2 tests were done; last seen: test /tests/one",
        rc=-9,
        timed_out=True,
        results=results("pass", "pending"),
        log=LOG,
    ),
    Case(
        "late before the first",
        "ERROR",
        "tests",
        "before any of its tests was done",
        rc=-9,
        timed_out=True,
        results=results("pending"),
    ),
    Case("late in the preparation", "ERROR", "tests", "before any", rc=-9, timed_out=True),
    Case(
        "a failure, then late",
        "FAIL",
        "package",
        "then the plan was killed",
        rc=-9,
        timed_out=True,
        results=results("fail", "pending"),
    ),
    Case("no YAML", "ERROR", "infrastructure", "results.yaml line 1 column 4", results="- {"),
    Case("a mapping", "ERROR", "infrastructure", "not a list", results="a: b\n"),
    Case("an odd entry", "ERROR", "infrastructure", "result 1 is not a mapping", results="- pass\n"),
    Case("an odd word", "ERROR", "infrastructure", "result 1 says 'good'", results="- result: good\n"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_a_plan_is_judged_by_what_tmt_left(case: Case, tmp_path: Path) -> None:
    if case.results is not None:
        (tmp_path / "results.yaml").write_text(case.results)
    (tmp_path / "tmt.log").write_text(case.log)
    (tmp_path / "tmt.txt").write_text(case.output)
    seen = judge(SuiteRun("/plans/ci", case.rc, tmp_path, case.unreachable, case.timed_out, kind="tmt"), "console")
    assert (seen.verdict, seen.blame) == (case.verdict, case.blame), seen.evidence
    assert case.evidence in seen.evidence
    assert seen.retryable is (case.blame == "infrastructure")
    assert seen.details == ("console" if case.timed_out or case.unreachable else "")


ENTRY = """\
- {name: /b, result: pass, serial-number: 2, log: []}
- name: /a
  result: error
  serial-number: 1
  log: [data/output.txt, /etc/shadow, ../x]
  note: [custom results file not found]
  context: &c {arch: [x86_64]}
  check:
  - {name: internal/timeout, result: fail, note: [Test exceeded maximum duration of 5s]}
  - {name: dmesg, result: pass}
  - {name: avc, result: fail, context: *c}
"""


def test_tests_come_in_the_order_in_which_they_ran_with_their_logs_and_notes(tmp_path: Path) -> None:
    (tmp_path / "results.yaml").write_text(ENTRY)
    note = (
        "custom results file not found; check internal/timeout: Test exceeded maximum duration of 5s; check avc: fail"
    )
    assert read_tmt_results(tmp_path) == (
        TestOutcome("/a", "error", ("data/output.txt",), note),
        TestOutcome("/b", "pass"),
    )


def test_a_link_planted_as_results_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "results.yaml").symlink_to("/etc/passwd")
    with pytest.raises(TestsError, match="no plain file"):
        read_tmt_results(tmp_path)


ANSIBLE = """\
2026-11-21 21:00:00,000 p=1 u=root n=ansible | PLAY [localhost] ****************
2026-11-21 21:00:01,000 p=1 u=root n=ansible | TASK [Gathering Facts] **********
2026-11-21 21:00:02,000 p=1 u=root n=ansible | ok: [guest]
2026-11-21 21:00:02,000 p=1 u=root n=ansible | TASK [role : Run [it]] *********
"""
RUNNING = [
    (ANSIBLE, "task 'role : Run [it]' of play 'localhost'"),
    (
        ANSIBLE.replace("2026-11-21 21:00:0", "").replace(" n=ansible | ", "\n"),
        "task 'role : Run [it]' of play 'localhost'",
    ),
    ("TASK [Wait] ****\nRUNNING HANDLER [Restart it] ****\n", "handler 'Restart it'"),
    ("PLAY [one] ***\n", "play 'one'"),
    ("PLAY [one] ***\nTASK [a] ***\nPLAY [two] ***\n", "play 'two'"),
    (LOG + LOG.replace("one", "two"), "test /tests/two"),
    ("nothing of ours\n", ""),
    ("", ""),
]


@pytest.mark.parametrize(("log", "step"), RUNNING)
def test_the_end_of_a_log_names_what_was_running(log: str, step: str) -> None:
    assert last_step(log) == step


FAILURES = [
    ('fatal: [g]: FAILED! => {"msg": "one"}\nfatal: [g]: FAILED! => {"msg": "two"}\nmore', "two"),
    ('2026 p=1 | fatal: [g]: UNREACHABLE! => {"msg": "gone", "unreachable": true}\n', "gone"),
    ('fatal: [g]: FAILED! => {"msg": "cut', ""),
    ("fatal: [g]: FAILED! => {}\n", ""),
    (
        'fatal: [g]: FAILED! => {"msg": "non-zero return code", "stderr": "", "stdout": "it cannot\\r\\n"}\n',
        "non-zero return code: it cannot",
    ),
    ('fatal: [g]: FAILED! => {"msg": "", "stderr": "x: error: bad\\nsee log", "stdout": "out"}\n', "x: error: bad"),
    ("nothing of ours\n", ""),
]


@pytest.mark.parametrize(("log", "message"), FAILURES)
def test_the_end_of_a_log_says_what_went_wrong(log: str, message: str) -> None:
    assert last_failure(log) == message


GAVE_UP = """\
    prepare step failed

        Command 'dnf install -y  beakerlib' returned 1.

        # stderr (1 lines)
        # ~~~~~~~~~~~~~~~~
        Error: no enabled repositories
        # ~~~~~~~~~~~~~~~~
"""
REASONS = [
    (
        GAVE_UP,
        "prepare step failed: Command 'dnf install -y  beakerlib' returned 1: Error: no enabled repositories",
    ),
    ("Unsupported execute method 'x'.\n\n# ~~~~\n", "Unsupported execute method 'x'."),
    ("", "see tmt.txt"),
]


@pytest.mark.parametrize(("output", "reason"), REASONS)
def test_the_end_of_tmts_output_says_why_it_gave_up(output: str, reason: str) -> None:
    assert tmt_failure(output) == reason
