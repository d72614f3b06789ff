"""The verdict on a conformance run's tests, who is to blame, and the status of the whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distgate.errors import Blame, TestsError
from distgate.files import tail_of
from distgate.steps import Step
from distgate.testing.junit_reader import JunitTests, read_junit
from distgate.testing.log_excerpts import ansible_refusal, last_failure, last_step
from distgate.testing.results import LOG_END, TestOutcome
from distgate.testing.verdict import RunVerdict, SuiteRun, SuiteVerdict, run_verdict
from distgate.text import first_of, printable

Phase = Literal["provision", "install", "conformance"]

#: ansible-playbook's statuses for a playbook that it cannot parse, and for one that it does not take: before the
#: first task, and at one.
_REFUSED = (4, 1, 2)
#: The terminal's output, which alone has refusals; the log may be more complete otherwise.
_OUTPUT = "ansible.txt"
_LOGS = ("ansible.log", _OUTPUT)
_UNREACHABLE = re.compile(r"(?:^|\| )fatal: \[([^]]*)\]: UNREACHABLE!", re.MULTILINE)
_FAILED_ON = re.compile(r"(?:^|\| )fatal: \[([^]]*)\]: FAILED!", re.MULTILINE)


@dataclass(frozen=True)
class NodeReport:
    """One node of a cluster. ``boot_seconds`` is 0 for a host that was there before; ``logs`` are files of this host:
    its console, its emulator's log, its journal when the run did not go well."""

    name: str
    groups: tuple[str, ...]
    address: str
    boot_seconds: float = 0.0
    logs: tuple[Path, ...] = ()


@dataclass(frozen=True)
class ConformanceReport:
    """The result of a conformance run.

    ``status`` is SUCCESS when all tests that ran passed, UNSTABLE when some did not, FAILURE when the cluster could
    not be installed or the tests could not be run. ``phase`` is how far it came, ``suite`` the verdict and its tests.
    """

    status: RunVerdict
    sentence: str
    phase: Phase
    suite: SuiteVerdict
    nodes: tuple[NodeReport, ...] = ()
    steps: tuple[Step, ...] = ()
    directory: Path = Path()

    @property
    def blame(self) -> Blame | None:
        """Who is to blame; None for a success."""
        return self.suite.blame

    @property
    def counts(self) -> Mapping[str, int]:
        """How many tests ``passed``, ``failed`` and were ``skipped``."""
        return counts(self.suite.tests)

    @property
    def retryable(self) -> bool:
        """Whether a fresh cluster may do better: only what our side broke is tried again."""
        return self.suite.retryable


def counts(tests: Sequence[TestOutcome]) -> dict[str, int]:
    """How many of ``tests`` passed, failed (errors are among these) and were skipped."""
    seen = Counter(test.result for test in tests)
    passed = seen["pass"] + seen["info"]
    return {"passed": passed, "failed": len(tests) - passed - seen["skip"], "skipped": seen["skip"]}


def judge_install(name: str, run: SuiteRun, console: str = "") -> SuiteVerdict | None:
    """The verdict on an installation that did not end well; None when the cluster stands.

    ``console`` is the end of the consoles of nodes that were lost.
    """
    decision = _broken_off(run, "the installation")
    if decision is None and run.returncode == 0:
        return None
    blame, evidence = decision or _failed(run, "the installation")
    return SuiteVerdict(name, "ERROR", blame, (), evidence, printable(console))


def judge_conformance(name: str, run: SuiteRun, least: int = 1, console: str = "") -> SuiteVerdict:
    """The verdict on the conformance tests by the JUnit files in ``run.artifacts``.

    ``least`` is how many tests have to pass for their run to count: a filter that matches nothing is no success.
    """
    try:
        junit_tests = read_junit(run.artifacts)
    except TestsError as error:
        lost = _broken_off(run, "the conformance run") if run.unreachable else None
        blame, reason = lost or ("tests", error.message)
        return SuiteVerdict(name, "ERROR", blame, (), reason, printable(console))
    verdict, guilty, evidence = _decide(run, junit_tests, least)
    return SuiteVerdict(name, verdict, guilty, junit_tests.tests, evidence, printable(console))


def status_of(verdict: SuiteVerdict) -> RunVerdict:
    """The status that one verdict makes: FAILURE for what could not be run, UNSTABLE for tests that did not pass."""
    return run_verdict([verdict])


_Decision = tuple[Literal["PASS", "FAIL", "ERROR", "NOTHING_RUN"], Blame | None, str]


def _decide(run: SuiteRun, junit_tests: JunitTests, least: int) -> _Decision:
    bad = [test for test in junit_tests.tests if test.result in ("fail", "error")]
    number = counts(junit_tests.tests)
    summary = f"{number['passed']} passed, {number['failed']} failed, {number['skipped']} skipped"
    lost = _broken_off(run, "the conformance run")
    if lost and bad and run.timed_out:
        return "FAIL", _blame(bad), f"{summary}: {_names(bad)}; then {lost[1]}"
    if lost:
        return "ERROR", *lost
    if bad:
        return "FAIL", _blame(bad), f"{summary}: {_names(bad)}"
    if run.returncode:
        return "ERROR", *_failed(run, "the conformance run")
    if not junit_tests.files:
        return "NOTHING_RUN", "tests", "the conformance playbook ended well, but left no JUnit file"
    if number["passed"] < least:
        return "NOTHING_RUN", "tests", f"{summary}: at least {least} had to pass for this to be a run"
    return "PASS", None, summary


def _broken_off(run: SuiteRun, what: str) -> tuple[Blame, str] | None:
    """Why a playbook did not get to its end by itself; None when it did."""
    log = _log(run)
    if run.unreachable:
        nodes = list(dict.fromkeys(_UNREACHABLE.findall(log)))
        named = f"node {', '.join(nodes)}" if nodes else "a node"
        return "infrastructure", printable(f"{named} could not be reached during {what}{_at(log)}", newlines=False)
    if run.timed_out:
        return "tests", printable(f"{what} was killed at its deadline{_at(log)}", newlines=False)
    return None


def _failed(run: SuiteRun, what: str) -> tuple[Blame, str]:
    """Who is to blame for a playbook that ended with a status, and its error.

    A task that fails on a node speaks about the image, which is what changed. Everything before the first task, and
    what fails on this side, is the profile's.
    """
    log = _log(run)
    why = ansible_refusal(tail_of(run.artifacts / _OUTPUT, LOG_END)) if run.returncode in _REFUSED else ""
    if why or not sum(run.tasks.values()):
        evidence = f"ansible-playbook did not take the playbook for {what}: {why or f'status {run.returncode}'}"
        return "configuration", printable(evidence, newlines=False)
    nodes = [name for name in dict.fromkeys(_FAILED_ON.findall(log))]
    reason = last_failure(log)
    where = f" on {', '.join(nodes)}" if nodes else ""
    evidence = f"{what} failed{where}{_at(log)}{': ' if reason else ''}{reason}"
    here = not nodes or all(name.partition(" ")[0] == "localhost" for name in nodes)
    return "configuration" if here else "package", printable(evidence, newlines=False)


def _at(log: str) -> str:
    step = last_step(log)
    return f", at {step}" if step else ""


def _log(run: SuiteRun) -> str:
    return next((text for name in _LOGS if (text := tail_of(run.artifacts / name, LOG_END))), "")


def _blame(bad: Sequence[TestOutcome]) -> Blame:
    # An error is a test that could not do its work; only a failure speaks about the image.
    return "package" if any(test.result == "fail" for test in bad) else "tests"


def _names(tests: Sequence[TestOutcome]) -> str:
    names = [printable(f"{test.name}{f' ({test.note})' if test.note else ''}", newlines=False) for test in tests]
    return first_of(names, "; ")
