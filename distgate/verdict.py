"""From what was observed to what it means: a verdict per suite with who is to blame, and one for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from distgate.errors import Blame, TestsError
from distgate.suite_results import LOG, RESULTS, TestOutcome, read_log, read_results

Verdict = Literal["PASS", "FAIL", "ERROR", "NOTHING_RUN"]
RunVerdict = Literal["SUCCESS", "UNSTABLE", "FAILURE"]

#: ansible-playbook's status for a playbook that cannot be parsed, and for an unreachable host, which we hear apart.
_CANNOT_PARSE = 4


class ObservedSuite(Protocol):
    """One run of a suite as its runner saw it: a SuiteRun of distgate.drivers.base."""

    @property
    def suite(self) -> str: ...
    @property
    def returncode(self) -> int: ...
    @property
    def artifacts(self) -> Path: ...
    @property
    def unreachable(self) -> bool: ...
    @property
    def timed_out(self) -> bool: ...
    @property
    def tasks(self) -> Mapping[str, int]: ...


@dataclass(frozen=True)
class SuiteVerdict:
    """What a suite's run means. ``blame`` is None where nobody is; ``evidence`` is one sentence that says why."""

    suite: str
    verdict: Verdict
    blame: Blame | None
    tests: tuple[TestOutcome, ...]
    evidence: str

    @property
    def retryable(self) -> bool:
        """Whether the same suite may do better on a fresh guest: only our own breakage is tried again."""
        return self.verdict == "ERROR" and self.blame == "infrastructure"


def judge(run: ObservedSuite) -> SuiteVerdict:
    """The verdict on one suite.

    A suite that left results or a log was run, whatever its exit status: older suites exit non-zero when a test
    fails, newer ones only when they could not run at all.
    """
    try:
        results = read_results(run.artifacts)
    except TestsError as malformed:
        return SuiteVerdict(run.suite, "ERROR", "tests", (), malformed.message)
    logged = read_log(run.artifacts)
    tests = results or logged or ()
    verdict, blame, evidence = _decide(run, results, logged)
    return SuiteVerdict(run.suite, verdict, blame, tests, evidence)


def unreadable(suite: str, problem: str) -> SuiteVerdict:
    """The verdict on a suite that was not started because its files cannot be read (distgate.discovery)."""
    return SuiteVerdict(suite, "ERROR", "tests", (), problem)


def run_verdict(suites: Sequence[SuiteVerdict]) -> RunVerdict:
    """The status of the whole test stage: FAILURE when a suite could not run, UNSTABLE when a test did not pass.

    No suites at all are no fault: a package without tests is a SUCCESS.
    """
    seen = {suite.verdict for suite in suites}
    if seen & {"ERROR", "NOTHING_RUN"}:
        return "FAILURE"
    return "UNSTABLE" if "FAIL" in seen else "SUCCESS"


_Decision = tuple[Verdict, Blame | None, str]


def _decide(
    run: ObservedSuite, results: tuple[TestOutcome, ...] | None, logged: tuple[TestOutcome, ...] | None
) -> _Decision:
    if run.unreachable:
        return "ERROR", "infrastructure", "the guest could not be reached while the suite ran"
    left = [name for name, found in ((RESULTS, results), (LOG, logged)) if found is not None]
    if run.timed_out:
        return _late(left)
    bad = [test for test in (*(results or ()), *(logged or ())) if test.result != "pass"]
    if bad:
        return "FAIL", _blame(bad), _list_of(bad, RESULTS if results and bad[0] in results else LOG)
    if not left:
        return _silent(run)
    if run.returncode:
        said = f"ansible-playbook ended with status {run.returncode} although {left[0]} tells of no failure"
        return "FAIL", "package", said
    if results == () and not logged:
        return "NOTHING_RUN", "tests", f"{RESULTS} lists no test"
    count = len(results or logged or ())
    return "PASS", None, f"{count} of {count} tests passed" if count else f"status 0, and {LOG} tells of no failure"


def _late(left: list[str]) -> _Decision:
    if LOG in left:
        return "FAIL", "tests", f"the suite was killed at its deadline; {LOG} was left"
    return "ERROR", "tests", f"the suite was killed at its deadline and left no {LOG}"


def _silent(run: ObservedSuite) -> _Decision:
    if run.returncode == 0:
        ran = run.tasks.get("ok", 0)
        count = f", {ran} tasks ran" if ran else ""
        return "NOTHING_RUN", "tests", f"status 0, but neither {RESULTS} nor {LOG} was left{count}"
    said = f"ansible-playbook ended with status {run.returncode} and left neither {RESULTS} nor {LOG}"
    if run.returncode == _CANNOT_PARSE:
        return "ERROR", "tests", f"{said}: it could not parse the playbook"
    return "ERROR", "infrastructure", said


def _blame(bad: Sequence[TestOutcome]) -> Blame:
    # "error" means that a test could not do its work; only "fail" speaks about the package.
    return "package" if any(test.result == "fail" for test in bad) else "tests"


def _list_of(bad: Sequence[TestOutcome], source: str) -> str:
    names = list(dict.fromkeys(f"{test.name} ({test.result})" for test in bad))
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{source}: {', '.join(names[:5])}{more}"
