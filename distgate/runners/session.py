"""All suites of a package against one image: each on a fresh guest, judged, and tried again when our side broke."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from distgate.errors import DistgateError, GaveUp, InfrastructureError, TestsError
from distgate.guests.base import Guest, GuestHost
from distgate.images.base import BaseImage
from distgate.rpm.nevra import Nevra
from distgate.runners.ansible import AnsibleSuites
from distgate.runners.tmt import TmtSuites, context_of
from distgate.steps import Progress
from distgate.testing.discovery import CLASSIC, Suite
from distgate.testing.reruns import Rerun, explain
from distgate.testing.verdict import (
    RunVerdict,
    SuiteRun,
    SuiteVerdict,
    judge,
    no_guest,
    no_time,
    run_verdict,
    unreadable,
)
from distgate.waiting import Deadline

#: Tries of one suite, each on a fresh guest, when our side broke; a verdict on the package is never repeated.
TRIES = 2
#: The verdict's sentence when no suite is enabled.
NONE_ENABLED = "the plans' adjust rules disable all of its tests here"
#: Seconds for the query of the packages that the base holds.
_RPM_QUERY_SECONDS = 300
_UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")

RunSuite = Callable[[Guest, Path, float], SuiteRun]
"""Runs one suite against a guest, leaves its artifacts in an empty directory, within so many seconds."""


class RunnerFor(Protocol):
    """Gives the runners of a checkout's suites against guests of an image, for one branch."""

    def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
        """The runner of ``suite``."""

    def enabled(self, checkout: Path) -> Collection[str]:
        """The names of the plans of tmt that are enabled where these run, their ``adjust`` rules applied.

        Raises TestsError when the tree cannot be read.
        """


@dataclass(frozen=True)
class JudgedSuite:
    """A suite and its verdict. ``directory`` has its ``artifacts`` and the logs of its ``guest``; ``rerun`` is the
    finding of further runs when it failed."""

    suite: Suite
    verdict: SuiteVerdict
    directory: Path
    rerun: Rerun | None = None

    @property
    def artifacts(self) -> Path:
        """The suite's results and logs, and its runner's."""
        return self.directory / "artifacts"


@dataclass(frozen=True)
class _SuiteTask:
    """One suite to run: the directory of its files, whether it is the last one, and the stage's deadline."""

    checkout: Path
    suite: Suite
    directory: Path
    last: bool
    deadline: Deadline


@dataclass(frozen=True)
class SuiteSession:
    """Runs suites. In seconds, ``boot_timeout`` is for a guest's boot, ``suite_timeout`` for one suite, and
    ``tests_timeout`` for all of them.

    ``ended`` gets the guest of each suite that was judged for good, while it still runs, with the verdict and whether
    it is the last suite: that is when a guest can be kept.
    """

    host: GuestHost
    base: BaseImage
    image: Path
    packages: Sequence[Nevra]
    runner_for: RunnerFor
    boot_timeout: float
    suite_timeout: float
    tests_timeout: float = math.inf
    progress: Progress = lambda _line: None
    ended: Callable[[Guest, SuiteVerdict, bool], None] = lambda _guest, _verdict, _last: None

    def run(
        self, checkout: Path, suites: Sequence[Suite], directory: Path, *, rerun_failed: bool = False
    ) -> tuple[JudgedSuite, ...]:
        """Run every suite of ``checkout``, also after a failing one, below the empty ``directory``.

        A plan that its ``adjust`` rules disable is reported and left out. With ``rerun_failed`` those that did not
        pass are run again, and without the change; their verdict stays. Suites that the stage's time does not reach
        are not started, and judged so. A guest that breaks is replaced once. Raises InfrastructureError when no guest
        can be had and nothing was judged yet.
        """
        deadline = Deadline(self.tests_timeout)
        suites = self._enabled(checkout, suites)
        paths = suite_directories(suites, directory)
        judged: list[JudgedSuite] = []
        for number, suite in enumerate(suites, 1):
            task = _SuiteTask(checkout, suite, paths[number - 1], number == len(suites), deadline)
            self.progress(f"{suite.name}: suite {number} of {len(suites)}")
            try:
                verdict = self._judge(task)
            except InfrastructureError as error:
                # Raised, it would have the stage tried again, and with it the tests that failed already.
                if all(earlier.suite.problem or earlier.verdict.retryable for earlier in judged):
                    raise
                verdict = no_guest(suite.name, error.message)
            self.progress(f"{suite.name}: {verdict.verdict}, {verdict.evidence}")
            judged.append(JudgedSuite(suite, verdict, task.directory))
        return tuple(self._with_rerun(checkout, suite, deadline) if rerun_failed else suite for suite in judged)

    def _enabled(self, checkout: Path, suites: Sequence[Suite]) -> Sequence[Suite]:
        """``suites`` without the plans that tmt would not run; tmt is run only where a plan has ``adjust`` rules."""
        if not any(suite.adjusted for suite in suites):
            return suites
        try:
            enabled = self.runner_for.enabled(checkout)
        except TestsError as error:  # each run says it again, as the verdict on its plan
            self.progress(f"{error.message}; none is left out")
            return suites
        left_out = [suite for suite in suites if suite.adjusted and suite.name not in enabled]
        for suite in left_out:
            self.progress(f"{suite.name}: not run, its adjust rules disable it here")
        return [suite for suite in suites if suite not in left_out]

    def _judge(self, task: _SuiteTask) -> SuiteVerdict:
        suite = task.suite
        if suite.problem:
            return unreadable(suite.name, suite.problem)
        if task.deadline.passed:
            return no_time(suite.name, self.tests_timeout)
        for number in range(1, TRIES):
            try:
                verdict = self._on_fresh_guest(task)
            except InfrastructureError as error:
                self.progress(f"{suite.name}: {error.message}; once more, on a fresh guest")
            else:
                if not verdict.retryable or task.deadline.passed:
                    return verdict
                self.progress(f"{suite.name}: {verdict.evidence}; once more, on a fresh guest")
            _set_aside(task.directory, f"try-{number}")
        return self._on_fresh_guest(task, final=True)

    def _on_fresh_guest(self, task: _SuiteTask, *, final: bool = False) -> SuiteVerdict:
        verdict = None
        try:
            with self.host.boot(self.image, self.base.ssh_key, task.directory / "guest", self.boot_timeout) as guest:
                verdict = self._run(task, self.image, guest)
                if final or not verdict.retryable:
                    self.ended(guest, verdict, task.last)
        except InfrastructureError as error:
            if verdict is None:
                raise
            # The verdict stands: a failing test is not run again because its guest ended badly.
            self.progress(f"{task.suite.name}: {error.message}")
        return verdict

    def _run(self, task: _SuiteTask, image: Path, guest: Guest) -> SuiteVerdict:
        run = self.runner_for(task.suite, task.checkout, image)
        seen = run(guest, task.directory / "artifacts", min(self.suite_timeout, max(task.deadline.remaining(), 1.0)))
        return judge(seen, guest.console_tail())

    # -- blame on red ------------------------------------------------------------------------------------------------

    def _with_rerun(self, checkout: Path, judged: JudgedSuite, deadline: Deadline) -> JudgedSuite:
        """The same verdict, with the finding of two more runs of the suite."""
        if judged.verdict.verdict == "PASS" or judged.verdict.retryable or judged.suite.problem:
            return judged
        if deadline.passed:
            return replace(judged, rerun=Rerun("cannot be told", "no time was left to run it again"))
        try:
            rerun = self._run_again(
                _SuiteTask(checkout, judged.suite, judged.directory, False, deadline), judged.verdict
            )
        except InfrastructureError as error:
            # The verdict stands without it.
            rerun = Rerun("cannot be told", f"it could not be run again: {error.message}")
        self.progress(f"{judged.suite.name}: {rerun.finding}: {rerun.evidence}")
        return replace(judged, rerun=rerun)

    def _run_again(self, task: _SuiteTask, first: SuiteVerdict) -> Rerun:
        name = task.suite.name
        self.progress(f"{name}: again on the same image, to find out whether it is flaky")
        attempt = replace(task, directory=task.directory / "again")
        with self.host.boot(self.image, self.base.ssh_key, attempt.directory / "guest", self.boot_timeout) as guest:
            again = self._run(attempt, self.image, guest)
        rerun = explain(first, again, None)
        if rerun.finding == "flaky":
            return rerun
        self.progress(f"{name}: on the base without the change")
        attempt = replace(task, directory=task.directory / "without")
        with self.host.boot(
            self.base.path, self.base.ssh_key, attempt.directory / "guest", self.boot_timeout
        ) as guest:
            absent = self._absent(guest)
            without = None if absent else self._run(attempt, self.base.path, guest)
        return explain(first, again, without, absent)

    def _absent(self, guest: Guest) -> tuple[str, ...]:
        """The packages under test of which the guest holds no version: a suite that fails there says nothing."""
        output = guest.run("rpm -qa --qf '%{NAME}\\n'", _RPM_QUERY_SECONDS)
        installed = set(output.stdout.split())
        return tuple(sorted({package.name for package in self.packages} - installed))


@dataclass(frozen=True)
class _Runners:
    branch: str
    roles_path: Sequence[Path] = ()
    ansible: Mapping[str, Path] = field(default_factory=dict[str, Path])
    srpm: Path | None = None
    tag: str = CLASSIC
    variables: Mapping[str, str] = field(default_factory=dict[str, str])

    def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
        if suite.kind == "tmt":
            plans = self._plans(checkout)
            return lambda guest, artifacts, timeout: plans.run(suite.name, guest, artifacts, {}, timeout)
        playbooks = AnsibleSuites([image], roles_path=self.roles_path, ansible=self.ansible, srpm=self.srpm)
        variables = {**self.variables, "git_branch": self.branch}
        playbook, tag = checkout / suite.path, self.tag if suite.kind == "sti" else ""

        def run(guest: Guest, artifacts: Path, timeout: float) -> SuiteRun:
            seen = playbooks.run(playbook, guest, artifacts, variables, timeout, tag)
            return replace(seen, kind=suite.kind)

        return run

    def enabled(self, checkout: Path) -> Collection[str]:
        return self._plans(checkout).enabled()

    def _plans(self, checkout: Path) -> TmtSuites:
        return TmtSuites(checkout, context_of(self.branch))


def runner_for(
    branch: str,
    *,
    roles_path: Sequence[Path] = (),
    ansible: Mapping[str, Path] | None = None,
    srpm: Path | None = None,
    tag: str = CLASSIC,
    variables: Mapping[str, str] | None = None,
) -> RunnerFor:
    """The runners of suites of any kind for packages of ``branch``; ``tag`` is that of the Standard Test Interface,
    and playbooks get the extra ``variables``. See AnsibleSuites for the other arguments."""
    return _Runners(branch, roles_path, ansible or {}, srpm, tag, variables or {})


def source_rpm(directory: Path) -> Path | None:
    """The source RPM among a build's files, which some suites unpack; None when it is not there."""
    return next(iter(sorted(directory.glob("*.src.rpm"))), None)


def suite_directories(suites: Sequence[Suite], directory: Path) -> list[Path]:
    """A path below ``directory`` for each suite, named after it: tests/tests_python.yml is ``tests_python``."""
    counts: dict[str, int] = {}
    paths = []
    for suite in suites:
        title = suite.name.removesuffix(".yml").removeprefix("tests/")
        name = _UNSAFE.sub("-", title).strip("-.")[:100] or "suite"
        counts[name] = counts.get(name, 0) + 1
        paths.append(directory / (name if counts[name] == 1 else f"{name}.{counts[name]}"))
    return paths


def status_of(judged: Sequence[JudgedSuite]) -> RunVerdict:
    """The verdict on the run that these suites make: SUCCESS, UNSTABLE, or FAILURE when one could not be run."""
    return run_verdict([suite.verdict for suite in judged])


def failure_of(judged: Sequence[JudgedSuite]) -> DistgateError:
    """The error of suites whose status is FAILURE: GaveUp when our side is to blame, else TestsError."""
    bad = [suite.verdict for suite in judged if suite.verdict.verdict in ("ERROR", "NOTHING_RUN")]
    evidence = "\n".join(f"{suite.suite.name}: {suite.verdict.verdict}: {suite.verdict.evidence}" for suite in judged)
    message = f"{len(bad)} of {len(judged)} test suites could not be run: {bad[0].evidence}"
    kind = GaveUp if any(verdict.retryable for verdict in bad) else TestsError
    return kind(message, hint="the runner's log in the suite's artifacts has every step", evidence=evidence)


def _set_aside(directory: Path, name: str) -> None:
    """Move the files of a try into a directory of their own, as evidence."""
    old = directory / name
    old.mkdir(parents=True)
    for entry in list(directory.iterdir()):
        if not entry.name.startswith("try-"):
            shutil.move(entry, old / entry.name)
