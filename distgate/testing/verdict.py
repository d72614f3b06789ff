"""From what was observed to what it means: a verdict per suite with who is to blame, and one for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from distgate.errors import Blame, TestsError
from distgate.files import tail_of
from distgate.testing.log_excerpts import last_failure, last_step, missing_packages, refusal, tmt_failure
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

#: ansible-playbook's status for a playbook that cannot be parsed, and for an unreachable host, which we hear apart.
_CANNOT_PARSE = 4
#: Its statuses for a playbook that it does not take for another reason, such as a role that is nowhere: before the
#: first task, and at the task that brings the role in.
_REFUSED = (1, 2)
#: tmt's statuses beyond 0 (all passed) and 1 (something failed).
_TMT_BROKE, _TMT_NO_RESULTS, _TMT_ALL_SKIPPED = 2, 3, 4
#: What the runners leave beside a suite's own files: its steps are in the first one that names any.
_LOGS: Mapping[str, tuple[str, ...]] = {
    "sti": ("ansible.log", "ansible.txt"),
    "tmt": ("tmt.log", "tmt.txt"),
    "playbook": ("ansible.log", "ansible.txt"),
}
#: Results that nobody has to look at.
_FINE = ("pass", "info", "skip")


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
    """What a suite's run means. ``blame`` is None where nobody is; ``evidence`` is one sentence that says why.

    ``details`` is text of several lines for those who look closer: the console's end of a suite that hung.
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
    step, said = last_step(text), "" if run.timed_out else last_failure(text)
    return f"{step}: {said}" if step and said and printable(said, newlines=False) not in evidence else step


def unreadable(suite: str, problem: str) -> SuiteVerdict:
    """The verdict on a suite that was not started because its files cannot be read (distgate.testing.discovery)."""
    return SuiteVerdict(suite, "ERROR", "tests", (), problem)


def no_guest(suite: str, why: str) -> SuiteVerdict:
    """The verdict on a suite for which our side had no guest."""
    return SuiteVerdict(suite, "ERROR", "infrastructure", (), f"no guest could be had: {why}")


def no_time(suite: str, seconds: float) -> SuiteVerdict:
    """The verdict on a suite that was not started, for those before it took all of the stage's ``seconds``."""
    said = f"not started: all suites together have {seconds:g} s, and those before it took them"
    return SuiteVerdict(suite, "NOTHING_RUN", "tests", (), said)


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


_UNREACHABLE = "the guest could not be reached while the suite ran"


def _decide(
    run: SuiteRun, results: tuple[TestOutcome, ...] | None, logged: tuple[TestOutcome, ...] | None
) -> _Decision:
    if run.unreachable:
        return "ERROR", "infrastructure", _UNREACHABLE
    left = [name for name, found in ((RESULTS, results), (LOG, logged)) if found is not None]
    bad = [test for test in (*(results or ()), *(logged or ())) if test.result != "pass"]
    named = _list_of(bad, RESULTS if results and bad[0] in results else LOG) if bad else ""
    if run.timed_out:
        return _late(left, bad, named)
    if bad:
        return "FAIL", _blame(bad), named
    missing = _missing(run) if run.returncode else ""
    if missing:
        return "ERROR", "tests", missing
    if not left:
        return _silent(run)
    if run.returncode:
        said = f"ansible-playbook ended with status {run.returncode} although {left[0]} tells of no failure"
        return "FAIL", "package", said
    if results == () and not logged:
        return "NOTHING_RUN", "tests", f"{RESULTS} lists no test"
    count = len(results or logged or ())
    return "PASS", None, f"{count} of {count} tests passed" if count else f"status 0, and {LOG} tells of no failure"


def _late(left: Sequence[str], bad: Sequence[TestOutcome], named: str) -> _Decision:
    if bad:
        return "FAIL", _blame(bad), f"{named}; then the suite was killed at its deadline"
    if left:
        return "FAIL", "tests", f"the suite was killed at its deadline; {' and '.join(left)} was left"
    return "ERROR", "tests", f"the suite was killed at its deadline and left no {LOG}"


def _missing(run: SuiteRun) -> str:
    """The packages that a suite asked for and the guest could not get: a fresh guest has the same ones."""
    found = (missing_packages(tail_of(run.artifacts / log, LOG_END)) for log in _LOGS["sti"])
    said = next((one for one in found if one), "")
    return f"not to be had in the guest: {printable(said, newlines=False)}" if said else ""


def _silent(run: SuiteRun) -> _Decision:
    if run.returncode == 0:
        ran = run.tasks.get("ok", 0)
        count = f", {ran} tasks ran" if ran else ""
        return "NOTHING_RUN", "tests", f"status 0, but neither {RESULTS} nor {LOG} was left{count}"
    said = f"ansible-playbook ended with status {run.returncode} and left neither {RESULTS} nor {LOG}"
    if run.returncode == _CANNOT_PARSE:
        return "ERROR", "tests", f"{said}: it could not parse the playbook"
    why = refusal(tail_of(run.artifacts / "ansible.txt", LOG_END)) if run.returncode in _REFUSED else ""
    if why:
        return "ERROR", "tests", f"{said}: {printable(why, newlines=False)}"
    return "ERROR", "infrastructure", said


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
        said = f"{last_step(tail_of(run.artifacts / 'ansible.txt', LOG_END))}: {why}"
        return "FAIL", "package", (), printable(said, newlines=False)
    if run.returncode:
        verdict, blame, evidence = _silent(run)
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
        return _late_tmt(tests, bad)
    if bad:
        return "FAIL", _blame(bad), _list_of(bad, TMT_RESULTS)
    if not tests:
        return _silent_tmt(run)
    if waiting:
        why = _why(tail_of(run.artifacts / "tmt.txt", LOG_END))
        return "ERROR", "tests", f"tmt ended with status {run.returncode}: {why}; not run: {_names(waiting)}"
    if all(test.result == "skip" for test in tests):
        return "NOTHING_RUN", "tests", f"all tests were skipped: {_names(tests)}"
    if run.returncode in (0, _TMT_ALL_SKIPPED):
        return "PASS", None, _count(tests)
    return "ERROR", "tests", f"tmt ended with status {run.returncode} although {TMT_RESULTS} tells of no failure"


def _late_tmt(tests: Sequence[TestOutcome], bad: Sequence[TestOutcome]) -> _Decision:
    done = [test for test in tests if test.result != "pending"]
    late = "the plan was killed at its deadline"
    if bad:
        return "FAIL", _blame(bad), f"{_list_of(bad, TMT_RESULTS)}; then {late}"
    if done:
        return "FAIL", "tests", f"{late}; {len(done)} of {len(tests)} tests were done"
    return "ERROR", "tests", f"{late} before any of its tests was done"


def _silent_tmt(run: SuiteRun) -> _Decision:
    said = f"tmt ended with status {run.returncode} and left no results"
    output = tail_of(run.artifacts / "tmt.txt", LOG_END)
    if run.returncode in (0, _TMT_NO_RESULTS, _TMT_ALL_SKIPPED) or "No plans found." in output:
        return "NOTHING_RUN", "tests", f"{said}: the plan runs no test here"
    if run.returncode == _TMT_BROKE:
        return "ERROR", "tests", f"{said}, it could not read or prepare the plan: {_why(output)}"
    return "ERROR", "infrastructure", said


def _why(output: str) -> str:
    return printable(tmt_failure(output), newlines=False)


def _count(tests: Sequence[TestOutcome]) -> str:
    words = [(word, sum(test.result == word for test in tests)) for word in _FINE]
    others = "".join(f", {count} {word}" for word, count in words[1:] if count)
    return f"{words[0][1]} of {len(tests)} tests passed{others}"


def _blame(bad: Sequence[TestOutcome]) -> Blame:
    # "error" means that a test could not do its work; only "fail" speaks about the package.
    return "package" if any(test.result == "fail" for test in bad) else "tests"


def _list_of(bad: Sequence[TestOutcome], source: str) -> str:
    return f"{source}: {_names(bad)}"


def _names(tests: Sequence[TestOutcome]) -> str:
    named = (f"{test.name} ({test.result}{', ' if test.note else ''}{test.note[:120]})" for test in tests)
    return first_of(list(dict.fromkeys(printable(name, newlines=False) for name in named)))


_JUDGES = {"sti": _judge_sti, "tmt": _judge_tmt, "playbook": _judge_playbook}
