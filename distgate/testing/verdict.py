"""Verdicts from observed suite runs: one per suite, with who is to blame, and one for the whole stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from distgate.errors import Blame, TestsError
from distgate.files import tail_of
from distgate.testing.log_excerpts import ansible_refusal, last_failure, last_step, missing_packages, tmt_failure
from distgate.testing.results import (
    LOG,
    LOG_END,
    RESULTS,
    TMT_RESULTS,
    TestOutcome,
    read_log,
    read_results,
    read_tmt_results,
)
from distgate.text import first_of, printable

Verdict = Literal["PASS", "FAIL", "ERROR", "NOTHING_RUN"]
RunVerdict = Literal["SUCCESS", "UNSTABLE", "FAILURE"]

#: ansible-playbook's status for a playbook that cannot be parsed, and for an unreachable host, which SuiteRun names.
_CANNOT_PARSE = 4
#: Its statuses for a playbook that it does not take for another reason, such as a role that is nowhere: before the
#: first task, and at the task that brings the role in.
_REFUSED = (1, 2)
#: tmt's statuses beyond 0 (all passed) and 1 (something failed).
_TMT_BROKE, _TMT_NO_RESULTS, _TMT_ALL_SKIPPED = 2, 3, 4
#: The runners' logs beside a suite's own files: its steps are in the first one that names any.
_LOGS: Mapping[str, tuple[str, ...]] = {
    "sti": ("ansible.log", "ansible.txt"),
    "tmt": ("tmt.log", "tmt.txt"),
    "playbook": ("ansible.log", "ansible.txt"),
}
#: Results that are no failures.
_FINE = ("pass", "info", "skip")
_UNREACHABLE = "the guest could not be reached while the suite ran"


@dataclass(frozen=True)
class SuiteRun:
    """What was observed when one test suite ran: the input of the verdict.

    ``kind`` says whose ``returncode`` and files in ``artifacts`` they are: those of ansible-playbook and the Standard
    Test Interface, tmt's, or those of a playbook whose tasks are the tests.
    """

    suite: str
    returncode: int
    artifacts: Path
    unreachable: bool = False
    timed_out: bool = False
    tasks: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["sti", "tmt", "playbook"] = "sti"


@dataclass(frozen=True)
class SuiteVerdict:
    """The meaning of a suite's run. ``blame`` is None for one that passed; ``evidence`` is a sentence that says why.

    ``details`` is text of several lines, such as the console's end of a suite that hung.
    """

    suite: str
    verdict: Verdict
    blame: Blame | None
    tests: tuple[TestOutcome, ...]
    evidence: str
    details: str = ""

    @property
    def retryable(self) -> bool:
        """Whether the same suite may do better on a fresh guest: only our own breakage is tried again."""
        return self.verdict == "ERROR" and self.blame == "infrastructure"


def judge(run: SuiteRun, console: str = "") -> SuiteVerdict:
    """The verdict on one suite; ``console`` is the end of its guest's serial console, evidence of a hang.

    A suite that left results or a log was run, whatever its exit status: older suites exit non-zero when a test
    fails, newer ones only when they could not run at all. The evidence of a suite that was broken off, or could not
    run, names the last step of its log.
    """
    seen = _JUDGES[run.kind](run)
    broken_off = run.unreachable or run.timed_out
    if not broken_off and seen.verdict != "ERROR":
        return seen
    at = next((step for step in (_stopped_at(run, log, seen.evidence) for log in _LOGS[run.kind]) if step), "")
    evidence = f"{seen.evidence}; last seen: {printable(at, newlines=False)}" if at else seen.evidence
    return replace(seen, evidence=evidence, details=printable(console) if broken_off else "")


def _stopped_at(run: SuiteRun, log: str, evidence: str) -> str:
    text = tail_of(run.artifacts / log, LOG_END)
    step, failure = last_step(text), "" if run.timed_out else last_failure(text)
    return f"{step}: {failure}" if step and failure and printable(failure, newlines=False) not in evidence else step


def unreadable(suite: str, problem: str) -> SuiteVerdict:
    """The verdict on a suite that was not started because its files cannot be read (distgate.testing.discovery)."""
    return SuiteVerdict(suite, "ERROR", "tests", (), problem)


def no_guest(suite: str, why: str) -> SuiteVerdict:
    """The verdict on a suite for which our side had no guest."""
    return SuiteVerdict(suite, "ERROR", "infrastructure", (), f"no guest could be had: {why}")


def no_time(suite: str, seconds: float) -> SuiteVerdict:
    """The verdict on a suite that was not started, for those before it took all of the stage's ``seconds``."""
    evidence = f"not started: all suites together have {seconds:g} s, and those before it took them"
    return SuiteVerdict(suite, "NOTHING_RUN", "tests", (), evidence)


def run_verdict(suites: Sequence[SuiteVerdict]) -> RunVerdict:
    """The status of the whole test stage: FAILURE when a suite could not run, UNSTABLE when a test did not pass.

    No suites at all are no fault: a package without tests is a SUCCESS.
    """
    seen = {suite.verdict for suite in suites}
    if seen & {"ERROR", "NOTHING_RUN"}:
        return "FAILURE"
    return "UNSTABLE" if "FAIL" in seen else "SUCCESS"


class _HasResult(Protocol):
    @property
    def result(self) -> str: ...


_T = TypeVar("_T", bound=_HasResult)


def worst_first(tests: Sequence[_T], most: int) -> Sequence[_T]:
    """``tests`` as they ran; when there are more than ``most``, so many, and those that did not pass come first."""
    if len(tests) <= most:
        return tests
    return sorted(tests, key=lambda test: test.result in _FINE)[:most]


_Decision = tuple[Verdict, Blame | None, str]


def _judge_sti(run: SuiteRun) -> SuiteVerdict:
    try:
        results = read_results(run.artifacts)
    except TestsError as error:
        return SuiteVerdict(run.suite, *_malformed(run, error, "tests"))
    logged = read_log(run.artifacts)
    verdict, blame, evidence = _decide(run, results, logged)
    return SuiteVerdict(run.suite, verdict, blame, results or logged or (), evidence)


def _malformed(
    run: SuiteRun, malformed: TestsError, blame: Blame
) -> tuple[Verdict, Blame, tuple[TestOutcome, ...], str]:
    if run.unreachable:  # the file may be the half of one
        return "ERROR", "infrastructure", (), f"{_UNREACHABLE}; {malformed.message}"
    return "ERROR", blame, (), malformed.message


def _decide(
    run: SuiteRun, results: tuple[TestOutcome, ...] | None, logged: tuple[TestOutcome, ...] | None
) -> _Decision:
    if run.unreachable:
        return "ERROR", "infrastructure", _UNREACHABLE
    files = [name for name, outcomes in ((RESULTS, results), (LOG, logged)) if outcomes is not None]
    bad = [test for test in (*(results or ()), *(logged or ())) if test.result != "pass"]
    named = _named_failures(bad, RESULTS if results and bad[0] in results else LOG) if bad else ""
    if run.timed_out:
        return _timed_out(files, bad, named)
    if bad:
        return "FAIL", _blame(bad), named
    missing = _missing(run) if run.returncode else ""
    if missing:
        return "ERROR", "tests", missing
    if not files:
        return _without_results(run)
    if run.returncode:
        contradiction = f"ansible-playbook ended with status {run.returncode} although {files[0]} tells of no failure"
        return "FAIL", "package", contradiction
    if results == () and not logged:
        return "NOTHING_RUN", "tests", f"{RESULTS} lists no test"
    count = len(results or logged or ())
    return "PASS", None, f"{count} of {count} tests passed" if count else f"status 0, and {LOG} tells of no failure"


def _timed_out(files: Sequence[str], bad: Sequence[TestOutcome], named: str) -> _Decision:
    if bad:
        return "FAIL", _blame(bad), f"{named}; then the suite was killed at its deadline"
    if files:
        return "FAIL", "tests", f"the suite was killed at its deadline; {' and '.join(files)} was left"
    return "ERROR", "tests", f"the suite was killed at its deadline and left no {LOG}"


def _missing(run: SuiteRun) -> str:
    """The packages that a suite wants and the guest cannot install: a fresh guest has the same ones."""
    listings = (missing_packages(tail_of(run.artifacts / log, LOG_END)) for log in _LOGS["sti"])
    packages = next((listing for listing in listings if listing), "")
    return f"not to be had in the guest: {printable(packages, newlines=False)}" if packages else ""


def _without_results(run: SuiteRun) -> _Decision:
    if run.returncode == 0:
        ran = run.tasks.get("ok", 0)
        count = f", {ran} tasks ran" if ran else ""
        return "NOTHING_RUN", "tests", f"status 0, but neither {RESULTS} nor {LOG} was left{count}"
    ending = f"ansible-playbook ended with status {run.returncode} and left neither {RESULTS} nor {LOG}"
    if run.returncode == _CANNOT_PARSE:
        return "ERROR", "tests", f"{ending}: it could not parse the playbook"
    why = ansible_refusal(tail_of(run.artifacts / "ansible.txt", LOG_END)) if run.returncode in _REFUSED else ""
    if why:
        return "ERROR", "tests", f"{ending}: {printable(why, newlines=False)}"
    return "ERROR", "infrastructure", ending


def _judge_playbook(run: SuiteRun) -> SuiteVerdict:
    """A playbook without results: each task is a test, and the first that fails ends it. One that leaves results or
    a log is judged by them, as any suite."""
    if any((run.artifacts / name).exists() for name in (RESULTS, LOG)):
        return _judge_sti(run)
    return SuiteVerdict(run.suite, *_decide_playbook(run))


def _decide_playbook(run: SuiteRun) -> tuple[Verdict, Blame | None, tuple[TestOutcome, ...], str]:
    if run.unreachable:
        return "ERROR", "infrastructure", (), _UNREACHABLE
    if run.timed_out:
        return "FAIL", "tests", (), "the playbook was killed at its deadline"
    passed, failed = run.tasks.get("ok", 0), run.tasks.get("failed", 0)
    if run.returncode and failed:
        why = last_failure(tail_of(run.artifacts / "ansible.txt", LOG_END))
        failure = f"{last_step(tail_of(run.artifacts / 'ansible.txt', LOG_END))}: {why}"
        return "FAIL", "package", (), printable(failure, newlines=False)
    if run.returncode:
        verdict, blame, evidence = _without_results(run)
        return verdict, blame, (), evidence
    if not passed:
        return "NOTHING_RUN", "tests", (), "status 0, but no task was run"
    return "PASS", None, (TestOutcome(run.suite, "pass"),), f"all {passed} tasks passed"


def _judge_tmt(run: SuiteRun) -> SuiteVerdict:
    try:
        tests = read_tmt_results(run.artifacts)
    except TestsError as error:  # tmt writes that file, on our side
        return SuiteVerdict(run.suite, *_malformed(run, error, "infrastructure"))
    verdict, blame, evidence = _decide_tmt(run, tests or ())
    return SuiteVerdict(run.suite, verdict, blame, tests or (), evidence)


def _decide_tmt(run: SuiteRun, tests: tuple[TestOutcome, ...]) -> _Decision:
    if run.unreachable:
        return "ERROR", "infrastructure", _UNREACHABLE
    bad = [test for test in tests if test.result not in (*_FINE, "pending")]
    waiting = [test for test in tests if test.result == "pending"]
    if run.timed_out:
        return _tmt_timed_out(tests, bad)
    if bad:
        return "FAIL", _blame(bad), _named_failures(bad, TMT_RESULTS)
    if not tests:
        return _tmt_without_results(run)
    if waiting:
        why = _tmt_reason(tail_of(run.artifacts / "tmt.txt", LOG_END))
        return "ERROR", "tests", f"tmt ended with status {run.returncode}: {why}; not run: {_names(waiting)}"
    if all(test.result == "skip" for test in tests):
        return "NOTHING_RUN", "tests", f"all tests were skipped: {_names(tests)}"
    if run.returncode in (0, _TMT_ALL_SKIPPED):
        return "PASS", None, _count(tests)
    return "ERROR", "tests", f"tmt ended with status {run.returncode} although {TMT_RESULTS} tells of no failure"


def _tmt_timed_out(tests: Sequence[TestOutcome], bad: Sequence[TestOutcome]) -> _Decision:
    done = [test for test in tests if test.result != "pending"]
    late = "the plan was killed at its deadline"
    if bad:
        return "FAIL", _blame(bad), f"{_named_failures(bad, TMT_RESULTS)}; then {late}"
    if done:
        return "FAIL", "tests", f"{late}; {len(done)} of {len(tests)} tests were done"
    return "ERROR", "tests", f"{late} before any of its tests was done"


def _tmt_without_results(run: SuiteRun) -> _Decision:
    ending = f"tmt ended with status {run.returncode} and left no results"
    output = tail_of(run.artifacts / "tmt.txt", LOG_END)
    if run.returncode in (0, _TMT_NO_RESULTS, _TMT_ALL_SKIPPED) or "No plans found." in output:
        return "NOTHING_RUN", "tests", f"{ending}: the plan runs no test here"
    if run.returncode == _TMT_BROKE:
        return "ERROR", "tests", f"{ending}, it could not read or prepare the plan: {_tmt_reason(output)}"
    return "ERROR", "infrastructure", ending


def _tmt_reason(output: str) -> str:
    return printable(tmt_failure(output), newlines=False)


def _count(tests: Sequence[TestOutcome]) -> str:
    counts = [(result, sum(test.result == result for test in tests)) for result in _FINE]
    others = "".join(f", {count} {result}" for result, count in counts[1:] if count)
    return f"{counts[0][1]} of {len(tests)} tests passed{others}"


def _blame(bad: Sequence[TestOutcome]) -> Blame:
    # "error" means that a test could not do its work; only "fail" speaks about the package.
    return "package" if any(test.result == "fail" for test in bad) else "tests"


def _named_failures(bad: Sequence[TestOutcome], source: str) -> str:
    return f"{source}: {_names(bad)}"


def _names(tests: Sequence[TestOutcome]) -> str:
    named = (f"{test.name} ({test.result}{', ' if test.note else ''}{test.note[:120]})" for test in tests)
    return first_of(list(dict.fromkeys(printable(name, newlines=False) for name in named)))


_JUDGES = {"sti": _judge_sti, "tmt": _judge_tmt, "playbook": _judge_playbook}
