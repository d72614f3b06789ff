"""What a conformance run means: for each thing that can be observed the verdict, who is to blame, and the status."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.conformance.verdict import ConformanceReport, counts, judge_conformance, judge_install, status_of
from distgate.errors import Blame
from distgate.testing.verdict import SuiteRun, Verdict

PASSED = "<testcase name='good'/>"
SKIPPED = "<testcase name='later'><skipped/></testcase>"
FAILED = "<testcase name='bad'><failure message='no way'/></testcase>"
ERROR = "<testcase name='odd'><error message='oops'/></testcase>"
TASK = "PLAY [Start it] ****\nTASK [Copy k3s] ****\n"
LOST = TASK + 'fatal: [agent]: UNREACHABLE! => {"msg": "gone", "unreachable": true}\n'
BROKEN = TASK + 'fatal: [agent]: FAILED! => {"msg": "no space left"}\n'
HERE = TASK + 'fatal: [localhost]: FAILED! => {"msg": "k3s is not the file that is meant"}\n'
RAN = {"ok": 3}


@dataclass(frozen=True)
class Seen:
    """How a playbook ended and what it left."""

    status: int = 0
    log: str = TASK
    junit: str | None = None
    unreachable: bool = False
    timed_out: bool = False
    tasks: dict[str, int] = field(default_factory=lambda: dict(RAN))
    least: int = 1

    def observed(self, artifacts: Path) -> SuiteRun:
        (artifacts / "ansible.log").write_text(self.log)
        (artifacts / "ansible.txt").write_text(self.log)
        if self.junit is not None:
            text = f"<testsuite>{self.junit}</testsuite>" if self.junit.startswith("<testcase") else self.junit
            (artifacts / "junit.xml").write_text(text)
        return SuiteRun("x.yml", self.status, artifacts, self.unreachable, self.timed_out, self.tasks)


INSTALLED: list[tuple[Seen, Blame | None, str]] = [
    (Seen(), None, ""),
    (Seen(2, BROKEN), "package", "failed on agent, at task 'Copy k3s' of play 'Start it': no space left"),
    (Seen(2, HERE), "configuration", "failed on localhost, at task .*: k3s is not the file that is meant"),
    (Seen(4, LOST, unreachable=True), "infrastructure", "node agent could not be reached during the installation"),
    (Seen(254, TASK, timed_out=True), "tests", "killed at its deadline, at task 'Copy k3s'"),
    (
        Seen(4, "ERROR! 'hsts' is not a valid attribute\n", tasks={}),
        "configuration",
        "'hsts' is not a valid attribute",
    ),
    (Seen(1, "ERROR! the role 'x' was not found\n"), "configuration", "the role 'x' was not found"),
    (Seen(4, "[ERROR]: 'hsts' is not a valid attribute\n", tasks={}), "configuration", "'hsts' is not a valid"),
    (Seen(1, "[ERROR]: the role 'x' was not found\nOrigin: /x.yml:1:2\n"), "configuration", "not found$"),
    (Seen(2, f"[ERROR]: Task failed: no space left\nOrigin: /x.yml:1:2\n\n{BROKEN}"), "package", "no space left"),
    (Seen(2, "", tasks={}), "configuration", "did not take the playbook .*: status 2"),
]


@pytest.mark.parametrize(("seen", "blame", "words"), INSTALLED, ids=range(len(INSTALLED)))
def test_an_installation_either_stands_or_is_an_error_with_somebody_to_blame(
    seen: Seen, blame: Blame | None, words: str, tmp_path: Path
) -> None:
    verdict = judge_install("k3s", seen.observed(tmp_path), console="last words")
    if blame is None:
        assert verdict is None
        return
    assert verdict is not None
    assert (verdict.verdict, verdict.blame, status_of(verdict)) == ("ERROR", blame, "FAILURE")
    assert verdict.retryable == (blame == "infrastructure")
    assert re.search(words, verdict.evidence), verdict.evidence
    assert verdict.details == "last words"


TESTED: list[tuple[Seen, Verdict, Blame | None, str]] = [
    (Seen(junit=PASSED + SKIPPED), "PASS", None, "1 passed, 0 failed, 1 skipped"),
    (Seen(junit=PASSED + FAILED), "FAIL", "package", r"1 passed, 1 failed, 0 skipped: bad \(no way\)"),
    (Seen(2, junit=PASSED + FAILED), "FAIL", "package", "bad"),
    (Seen(junit=PASSED + ERROR), "FAIL", "tests", "odd"),
    (Seen(junit=FAILED + ERROR), "FAIL", "package", "0 passed, 2 failed"),
    (Seen(junit=SKIPPED), "NOTHING_RUN", "tests", "at least 1 had to pass"),
    (Seen(junit=PASSED * 9, least=10), "NOTHING_RUN", "tests", "9 passed.*at least 10 had to pass"),
    (Seen(junit="<testsuites/>"), "NOTHING_RUN", "tests", "0 passed"),
    (Seen(), "NOTHING_RUN", "tests", "left no JUnit file"),
    (Seen(junit="no xml"), "ERROR", "tests", "junit.xml is no well-formed XML"),
    (Seen(4, LOST, junit="no xml", unreachable=True), "ERROR", "infrastructure", "node agent could not be reached"),
    (Seen(4, LOST, junit=PASSED, unreachable=True), "ERROR", "infrastructure", "node agent could not be reached"),
    (Seen(4, LOST, junit=FAILED, unreachable=True), "ERROR", "infrastructure", "node agent could not be reached"),
    (Seen(254, timed_out=True), "ERROR", "tests", "the conformance run was killed at its deadline"),
    (Seen(254, junit=PASSED, timed_out=True), "ERROR", "tests", "killed at"),
    (Seen(254, junit=PASSED + FAILED, timed_out=True), "FAIL", "package", "bad .*; then .*killed at"),
    (Seen(2, BROKEN), "ERROR", "package", "the conformance run failed on agent.*no space left"),
    (Seen(2, BROKEN, junit=PASSED), "ERROR", "package", "no space left"),
]


@pytest.mark.parametrize(("seen", "wanted", "blame", "words"), TESTED, ids=range(len(TESTED)))
def test_the_junit_files_decide_unless_the_run_was_broken_off(
    seen: Seen, wanted: Verdict, blame: Blame | None, words: str, tmp_path: Path
) -> None:
    verdict = judge_conformance("k3s", seen.observed(tmp_path), seen.least)
    assert (verdict.verdict, verdict.blame) == (wanted, blame), verdict.evidence
    assert re.search(words, verdict.evidence), verdict.evidence
    assert status_of(verdict) == {"PASS": "SUCCESS", "FAIL": "UNSTABLE"}.get(wanted, "FAILURE")


def test_a_report_counts_its_tests(tmp_path: Path) -> None:
    verdict = judge_conformance("k3s", Seen(junit=PASSED * 3 + FAILED + ERROR + SKIPPED).observed(tmp_path))
    assert counts(verdict.tests) == {"passed": 3, "failed": 2, "skipped": 1}
    report = ConformanceReport(status_of(verdict), verdict.evidence, "conformance", verdict)
    assert (report.counts, report.blame, report.retryable) == (counts(verdict.tests), "package", False)


def test_words_of_strangers_cannot_move_the_cursor_of_who_reads_them(tmp_path: Path) -> None:
    verdict = judge_conformance("k3s", Seen(junit=FAILED.replace("no way", "a&#10;b\u202e")).observed(tmp_path))
    assert verdict.evidence.endswith("bad (a b)")
