"""Who is to blame is decided from what a suite left, once, in a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.errors import TestsError
from distgate.testing.results import TestOutcome, read_results
from distgate.testing.verdict import SuiteRun, SuiteVerdict, judge, run_verdict, unreadable, worst_first


@dataclass(frozen=True)
class Case:
    says: str
    verdict: str
    blame: str | None
    evidence: str
    rc: int = 0
    results: str | None = None
    log: str | None = None
    unreachable: bool = False
    timed_out: bool = False
    tasks: Mapping[str, int] = field(default_factory=dict)


PASSED = "results:\n- {result: pass, test: one, logs: [one.log]}\n"
FAILED = "results:\n- {result: pass, test: one}\n- result: fail\n  test: two\n  logs: [two.log, more/two.log]\n"
ERRORED = "results:\n- result: error\n  test: three\n"

CASES = [
    Case("results that all pass", "PASS", None, "1 of 1 tests passed", results=PASSED),
    Case("a failing result, status 0", "FAIL", "package", "two (fail)", results=FAILED),
    Case("a failing result, status 2", "FAIL", "package", "two (fail)", rc=2, results=FAILED),
    Case("only an error", "FAIL", "tests", "three (error)", results=ERRORED),
    Case(
        "passing results but a failing log", "FAIL", "package", "test.log: x (fail)", results=PASSED, log="FAIL x\n"
    ),
    Case("passing results but status 2", "FAIL", "package", "status 2 although results.yml", rc=2, results=PASSED),
    Case("a log that passes", "PASS", None, "2 of 2 tests passed", log="PASS a\nPASS b\n"),
    Case("a log with a colon", "FAIL", "package", "b (fail)", log="PASS: a\nFAIL: b\n"),
    Case("a log with an error", "FAIL", "tests", "b (error)", log="PASS a\nERROR b\n"),
    Case("free text, status 0", "PASS", None, "test.log tells of no failure", log="all went well\n"),
    Case("a free log, status 2", "FAIL", "package", "status 2 although test.log", rc=2, log="something\n"),
    Case("an empty log, status 2", "FAIL", "package", "status 2", rc=2, log=""),
    Case("a word alone hides nothing below it", "FAIL", "package", "x (fail)", log="PASS\nFAIL x\n"),
    Case("a failure far behind", "FAIL", "package", "x (fail)", log="noise\n" * (1 << 20) + "FAIL x\n"),
    Case("a failure behind a flood", "FAIL", "package", "x (fail)", log="PASS a\n" * 25_000 + "FAIL x\n"),
    Case("a long line hides nothing", "FAIL", "package", "x (fail)", log="-" * 10_000 + "PASS\nFAIL x\n"),
    Case(
        "two results of one test",
        "ERROR",
        "tests",
        "results.yml line 2 column 26: the key result is there twice",
        results="results:\n- {result: pass, result: fail}\n",
    ),
    Case("a name without end", "FAIL", "package", "z... (fail)", log=f"FAIL {'z' * 3000}\n"),
    Case("words like FAIL", "PASS", None, "tells of no", log="FAILED: 0\n# FAIL: 0\nERRORS 0\n"),
    Case("nothing left, status 0", "NOTHING_RUN", "tests", "neither results.yml nor test.log"),
    Case("nothing left, tasks ran", "NOTHING_RUN", "tests", "3 tasks", tasks={"ok": 3}),
    Case("an empty list of results", "NOTHING_RUN", "tests", "lists no test", results="results: []\n"),
    Case("an empty list, but a log", "PASS", None, "1 of 1", results="results: []\n", log="PASS a\n"),
    Case("nothing left, status 2", "ERROR", "infrastructure", "status 2 and left neither", rc=2),
    Case("a playbook that is no YAML", "ERROR", "tests", "could not parse", rc=4),
    Case("ansible's own bug", "ERROR", "infrastructure", "status 250", rc=250),
    Case("no ansible", "ERROR", "infrastructure", "status 127", rc=127),
    Case("unreachable", "ERROR", "infrastructure", "could not be reached", rc=4, unreachable=True),
    Case("lost half-way", "ERROR", "infrastructure", "not be reached", rc=4, unreachable=True, log="PASS a\n"),
    Case("late, with a log", "FAIL", "tests", "killed at its deadline", rc=254, timed_out=True, log="PASS a\n"),
    Case("too late, without one", "ERROR", "tests", "left no test.log", rc=254, timed_out=True),
    Case(
        "a failure, then late",
        "FAIL",
        "package",
        "two (fail); then the suite was killed",
        results=FAILED,
        timed_out=True,
    ),
    Case("late, with results", "FAIL", "tests", "deadline; results.yml was left", results=PASSED, timed_out=True),
    Case(
        "lost, with half a file", "ERROR", "infrastructure", "reached", rc=4, unreachable=True, results="results: ["
    ),
    Case(
        "flow style",
        "FAIL",
        "package",
        "b (fail)",
        results="{results: [{test: a, result: pass}, {test: b, result: fail}]}",
    ),
    Case("text that was appended", "FAIL", "package", "two (fail)", results=PASSED + FAILED),
    Case("several documents", "FAIL", "package", "two (fail)", results=PASSED + "---\n" + FAILED),
    Case("a broken second document", "ERROR", "tests", "line 4 column", results=PASSED + "---\n}\n"),
    Case("results that are null", "ERROR", "tests", "results.yml line 1 column 10", results="results: null\n"),
    Case("results without results", "ERROR", "tests", "results must be a list", results="tests: []\n"),
    Case("a list at the top", "ERROR", "tests", "line 1 column 1: a mapping", results="- result: pass\n"),
    Case("empty results", "ERROR", "tests", "results.yml: it is empty", results=""),
    Case("broken YAML", "ERROR", "tests", "line 3 column", results="results:\n- result: pass\n test: x\n"),
    Case("a tab", "ERROR", "tests", "results.yml line 2 column 1", results="results:\n\t- result: pass\n"),
    Case("an odd word", "ERROR", "tests", "line 2 column 11: result must be", results="results:\n- result: good\n"),
    Case("an odd entry", "ERROR", "tests", "line 2 column 3: each result", results="results:\n- pass\n"),
    Case("malformed beats status 0", "ERROR", "tests", "results.yml", results="{", log="PASS a\n"),
    Case("a capital", "FAIL", "package", "x (fail)", results="results:\n- {result: FAIL, test: x}\n"),
    Case("aliases", "PASS", None, "2 of 2", results="results:\n- &a {result: pass, test: x}\n- *a\n"),
    Case("no name", "FAIL", "package", "test 1 (fail)", results="results:\n- result: fail\n"),
    Case("many failures", "FAIL", "package", "and 2 more", log="".join(f"FAIL t{n}\n" for n in range(7))),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_a_suite_is_judged_by_what_it_left(case: Case, tmp_path: Path) -> None:
    for name, text in (("results.yml", case.results), ("test.log", case.log)):
        if text is not None:
            (tmp_path / name).write_text(text)
    run = SuiteRun("tests.yml", case.rc, tmp_path, case.unreachable, case.timed_out, case.tasks)
    seen = judge(run)
    assert (seen.verdict, seen.blame) == (case.verdict, case.blame), seen.evidence
    assert case.evidence in seen.evidence
    assert seen.retryable is (case.blame == "infrastructure")


_STOPPED = 'PLAY [all] **\nTASK [Look at it] ****\nfatal: [guest]: FAILED! => {"msg": "not booted into it"}\n'
#: A playbook whose tasks are the tests: status, tasks, ansible's words.
PLAYBOOKS = [
    Case("all tasks passed", "PASS", None, "all 3 tasks passed", tasks={"ok": 3}),
    Case("none was run", "NOTHING_RUN", "tests", "no task was run"),
    Case("a task failed", "FAIL", "package", "not booted into it", rc=2, tasks={"ok": 1, "failed": 1}),
    Case("it cannot be parsed", "ERROR", "tests", "could not parse", rc=4),
    Case("the guest is gone", "ERROR", "infrastructure", "reached", rc=4, unreachable=True),
    Case("killed at its deadline", "FAIL", "tests", "killed at its deadline", rc=254, timed_out=True),
    Case("results are believed", "FAIL", "package", "two (fail)", results=FAILED, tasks={"ok": 3}),
]


@pytest.mark.parametrize("case", PLAYBOOKS, ids=lambda case: case.says)
def test_a_playbook_of_a_site_is_judged_by_its_tasks(case: Case, tmp_path: Path) -> None:
    (tmp_path / "ansible.txt").write_text(_STOPPED if case.tasks.get("failed") else "")
    if case.results:
        (tmp_path / "results.yml").write_text(case.results)
    run = SuiteRun("host.yml", case.rc, tmp_path, case.unreachable, case.timed_out, case.tasks, "playbook")
    seen = judge(run)
    assert (seen.verdict, seen.blame) == (case.verdict, case.blame), seen.evidence
    assert case.evidence in seen.evidence


def test_the_tests_of_a_suite_are_listed_with_their_logs_inside_the_artifacts(tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_text(
        "results:\n- {result: fail, test: two, logs: [two.log, /etc/shadow, ../up.log, more/two.log]}\n"
    )
    assert read_results(tmp_path) == (TestOutcome("two", "fail", ("two.log", "more/two.log")),)


def test_results_of_several_directories_are_merged_and_their_logs_stay_findable(tmp_path: Path) -> None:
    for folder in ("", "a", "b"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "results.yml").write_text(
            f"results:\n- {{result: pass, test: of {folder or 'all'}, logs: [x.log]}}\n"
        )
    (tmp_path / "link").symlink_to(tmp_path / "a")
    seen = read_results(tmp_path)
    assert seen is not None
    assert [(test.name, test.logs) for test in seen] == [
        ("of all", ("x.log",)),
        ("of a", ("a/x.log",)),
        ("of b", ("b/x.log",)),
    ]
    (tmp_path / "b" / "results.yml").write_text("results:\n- pass\n")
    with pytest.raises(TestsError, match=r"b/results\.yml line 2 column 3"):
        read_results(tmp_path)


def test_a_hang_is_judged_with_the_task_it_was_at_and_the_console(tmp_path: Path) -> None:
    (tmp_path / "ansible.log").write_text("x | PLAY [all] **\nx | TASK [Download it] **********\n")
    seen = judge(SuiteRun("s", 254, tmp_path, timed_out=True), "Kernel \x1b[31mpanic\n")
    assert seen.evidence.endswith("left no test.log; last seen: task 'Download it' of play 'all'")
    assert seen.details == "Kernel panic\n"


def test_a_playbook_that_could_not_go_on_is_judged_with_the_task_it_stopped_at(tmp_path: Path) -> None:
    steps = "x | PLAY [all] **\nx | TASK [Install what it needs] **********\n"
    fatal = 'x | fatal: [guest]: FAILED! => {"changed": false, "msg": "no package\\n\\u001b[31mfoo"}\n'
    (tmp_path / "ansible.log").write_text(steps + fatal)
    seen = judge(SuiteRun("s", 2, tmp_path), "console")
    assert seen.evidence.endswith("last seen: task 'Install what it needs' of play 'all': no package foo")
    assert seen.details == ""


#: What the last failed task returned as JSON, and the words of the evidence when it is about packages.
MISSING = {
    "our own roles": (
        '{"msg": "required packages are missing: meson ninja; dnf: no repository"}',
        "meson ninja; dnf",
    ),
    "the module dnf": (
        '{"failures": ["No package meson available."], "msg": "Failed to install some of the specified packages"}',
        "No package meson available.",
    ),
    "several": (
        '{"failures": ["No package a available.", "No match for argument: b"], "msg": "no"}',
        "No package a available., No match for argument: b",
    ),
    "a message of several lines": ('{"msg": ["It failed:", "No package a available."]}', "No package a available."),
    "a package that could not be removed": ('{"failures": ["b is protected"], "msg": "Failed to remove"}', ""),
    "another reason": ('{"msg": "non-zero return code", "stdout": "No package meson available."}', ""),
    "something else than a mapping": ("{", ""),
}


@pytest.mark.parametrize(("returned", "named"), MISSING.values(), ids=MISSING)
@pytest.mark.parametrize("results", [None, PASSED])
def test_a_package_that_cannot_be_had_is_named_and_not_waited_for(
    returned: str, named: str, results: str | None, tmp_path: Path
) -> None:
    (tmp_path / "ansible.txt").write_text(
        f"TASK [Install] *****\nfatal: [guest]: FAILED! => {returned}\n\nPLAY RECAP ****\n"
    )
    if results:
        (tmp_path / "results.yml").write_text(results)
    seen = judge(SuiteRun("s", 2, tmp_path))
    if named:
        assert (seen.verdict, seen.blame, seen.retryable) == ("ERROR", "tests", False)
        assert named in seen.evidence
        assert "not to be had in the guest" in seen.evidence
    else:
        assert seen.verdict == ("FAIL" if results else "ERROR")
        assert "not to be had" not in seen.evidence


NOWHERE = "the role 'nowhere' was not found in /x/roles"
UNDEFINED = "Task failed: Finalization of task args for 'debug' failed: 'nosuch' is undefined"
ORIGIN = "Origin: /x/tests.yml:4:7\n\n4   - role: nowhere\n      ^ column 7\n\n"
TASK = "PLAY [all] ***\n\nTASK [Bring it in] ***\n"
NO_FILE = (
    "Unable to retrieve file contents.\nCould not find or access '/x/none.yml' on the Ansible Controller.\n"
    "If you are using a module and expect the file to exist on the remote, see the remote_src option\n"
)
#: ansible-playbook's status and words, and the evidence when the suite is at fault; else it is tried again.
REFUSALS = {
    "a role, 2.17": (1, f"ERROR! {NOWHERE}\n\nThe error appears to be in '/x/tests.yml'\n", NOWHERE),
    "a role, 2.19": (1, f"[ERROR]: {NOWHERE}\n{ORIGIN}", NOWHERE),
    "a role, 2.19, in its log": (1, f"2026 p=1 u=root n=ansible ERROR| [ERROR]: {NOWHERE}\n{ORIGIN}", NOWHERE),
    "a role, on a terminal": (1, f"[ERROR]: the role 'nowhere' was\r\nnot found in /x/roles\r\n{ORIGIN}", NOWHERE),
    "a file, 2.17": (1, f"ERROR! {NO_FILE}", "/x/none.yml' on the Ansible Controller"),
    "a file, 2.19": (1, f"[ERROR]: {NO_FILE}", "/x/none.yml' on the Ansible Controller"),
    "a warning after it": (1, f"[ERROR]: {NOWHERE}\n{ORIGIN}[WARNING]: Deprecated\n", NOWHERE),
    "a role that a task includes": (
        2,
        f'{TASK}[ERROR]: {NOWHERE}\n{ORIGIN}fatal: [g]: FAILED! => {{"reason": "{NOWHERE}"}}\n\nPLAY RECAP ***\n',
        NOWHERE,
    ),
    "a variable, 2.17": (
        2,
        f'{TASK}fatal: [g]: FAILED! => {{"msg": "The task includes an option with an undefined variable."}}\n',
        "with an undefined variable",
    ),
    "a variable, 2.19": (
        2,
        f'{TASK}[ERROR]: {UNDEFINED}\n{ORIGIN}fatal: [g]: FAILED! => {{"msg": "{UNDEFINED}"}}\n',
        "'nosuch' is undefined",
    ),
    "a task that failed, 2.19": (
        2,
        f'{TASK}[ERROR]: Task failed: no\n{ORIGIN}fatal: [g]: FAILED! => {{"msg": ""}}\n',
        "",
    ),
    "killed after an ignored failure": (
        1,
        f'{TASK}[ERROR]: Task failed: no\n{ORIGIN}fatal: [g]: FAILED! => {{"msg": "no"}}\n...ignoring\n',
        "",
    ),
    "killed after a failed item": (1, f'{TASK}[ERROR]: no\n{ORIGIN}failed: [g] (item=1) => {{"msg": "no"}}\n', ""),
    "a bug of ansible, 2.19": (250, "[ERROR]: Unexpected Exception, this is probably a bug\n", ""),
}


@pytest.mark.parametrize(("status", "words", "named"), REFUSALS.values(), ids=REFUSALS)
def test_a_playbook_that_ansible_does_not_take_is_the_tests_fault(
    status: int, words: str, named: str, tmp_path: Path
) -> None:
    (tmp_path / "ansible.txt").write_text(words, newline="")
    seen = judge(SuiteRun("s", status, tmp_path))
    assert (seen.verdict, seen.blame) == ("ERROR", "tests" if named else "infrastructure"), seen.evidence
    assert named in seen.evidence


def test_bytes_that_are_no_text_do_not_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "test.log").write_bytes(b"\xff\x1b[31m\nFAIL caf\xe9\n")
    assert judge(SuiteRun("s", 0, tmp_path)).verdict == "FAIL"


def test_a_link_planted_as_results_shows_nothing_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("results:\n- {result: pass, test: secret}\n")
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "results.yml").symlink_to(tmp_path / "secret")
    (tmp_path / "artifacts" / "test.log").symlink_to(tmp_path / "secret")
    seen = judge(SuiteRun("s", 0, tmp_path / "artifacts"))
    assert (seen.verdict, seen.blame, seen.tests) == ("ERROR", "tests", ())


def test_a_pipe_planted_as_a_log_does_not_hang_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test.log")
    assert judge(SuiteRun("s", 0, tmp_path)).verdict == "NOTHING_RUN"


def test_results_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_bytes(b"#" * (5 << 20))
    with pytest.raises(TestsError, match="longer than"):
        read_results(tmp_path)


RUNS = [
    ([], "SUCCESS"),
    (["PASS"], "SUCCESS"),
    (["PASS", "FAIL"], "UNSTABLE"),
    (["FAIL", "ERROR"], "FAILURE"),
    (["PASS", "ERROR"], "FAILURE"),
    (["PASS", "NOTHING_RUN"], "FAILURE"),
    (["NOTHING_RUN"], "FAILURE"),
]


@pytest.mark.parametrize(("verdicts", "status"), RUNS)
def test_a_run_is_as_good_as_its_worst_suite(verdicts: list[str], status: str) -> None:
    suites = [SuiteVerdict("s", verdict, None, (), "") for verdict in verdicts]  # type: ignore[arg-type]
    assert run_verdict(suites) == status


def test_where_not_all_tests_are_shown_the_bad_ones_are() -> None:
    tests = [TestOutcome(f"test {number}", "fail" if number == 8 else "pass") for number in range(10)]
    assert worst_first(tests, 10) == tests
    assert [test.name for test in worst_first(tests, 3)] == ["test 8", "test 0", "test 1"]


def test_a_suite_that_cannot_be_read_is_its_own_fault() -> None:
    seen = unreadable("tests.yml", "tests.yml line 3 column 1: broken")
    assert (seen.verdict, seen.blame, seen.retryable) == ("ERROR", "tests", False)
