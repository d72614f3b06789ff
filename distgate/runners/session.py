"""All suites of a package against one image: each on a fresh guest, judged, and tried again when our side broke.

Runs and ``distgate reproduce`` do the same with it; nothing here knows of Prefect.
"""

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

#: Tries of one suite, each on a fresh guest, when our side broke; what the package's tests said is never repeated.
TRIES = 2
#: What the verdict says when no suite was left to run.
NONE_ENABLED = "the plans' adjust rules disable all of its tests here"
#: Seconds for asking the base which packages it holds.
_ASK_SECONDS = 300
_ODD = re.compile(r"[^A-Za-z0-9._+-]+")

RunSuite = Callable[[Guest, Path, float], SuiteRun]
"""Runs one suite against a guest, leaves its artifacts in an empty directory, within so many seconds."""


class RunnerFor(Protocol):
    """What runs suites of a checkout against guests of an image, for one branch."""

    def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
        """What runs ``suite``."""

    def enabled(self, checkout: Path) -> Collection[str]:
        """The names of the plans of tmt that are enabled where these run, their ``adjust`` rules applied.

        Raises TestsError when the tree cannot be read.
        """


@dataclass(frozen=True)
class JudgedSuite:
    """A suite and its verdict. ``directory`` holds what it left (``artifacts``) and its guest's logs (``guest``);
    ``rerun`` says where to look first when it failed and was run again to find out."""

    suite: Suite
    verdict: SuiteVerdict
    directory: Path
    rerun: Rerun | None = None

    @property
    def artifacts(self) -> Path:
        """What the suite left: results, logs, and what its runner said."""
        return self.directory / "artifacts"


@dataclass(frozen=True)
class _Turn:
    """One suite's turn: where its files go, whether it is the last one, and when the stage's time is over."""

    checkout: Path
    suite: Suite
    place: Path
    last: bool
    deadline: Deadline


@dataclass(frozen=True)
class SuiteSession:
    """How suites are run here. In seconds, ``boot_timeout`` is for a guest's boot, ``suite_timeout`` for one suite,
    and ``tests_timeout`` for all of it.

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
        self, checkout: Path, suites: Sequence[Suite], room: Path, *, rerun_failed: bool = False
    ) -> tuple[JudgedSuite, ...]:
        """Run every suite of ``checkout``, also after a failing one, below the empty directory ``room``.

        A plan that its ``adjust`` rules disable is told and left out, as one is that is always disabled.
        With ``rerun_failed`` those that did not pass are run again, and without the change; their verdict stays.
        Suites that the stage's time does not reach are not started, and judged so. A guest that breaks is replaced
        once. Raises InfrastructureError when no guest can be had and nothing was judged yet.
        """
        deadline = Deadline(self.tests_timeout)
        suites = self._enabled(checkout, suites)
        rooms = directories(suites, room)
        judged: list[JudgedSuite] = []
        for number, suite in enumerate(suites, 1):
            turn = _Turn(checkout, suite, rooms[number - 1], number == len(suites), deadline)
            self.progress(f"{suite.name}: suite {number} of {len(suites)}")
            try:
                verdict = self._judge(turn)
            except InfrastructureError as error:
                # Raised, it would have the stage tried again, and with it the tests that failed already.
                if all(one.suite.problem or one.verdict.retryable for one in judged):
                    raise
                verdict = no_guest(suite.name, error.message)
            self.progress(f"{suite.name}: {verdict.verdict}, {verdict.evidence}")
            judged.append(JudgedSuite(suite, verdict, turn.place))
        return tuple(self._explained(checkout, one, deadline) if rerun_failed else one for one in judged)

    def _enabled(self, checkout: Path, suites: Sequence[Suite]) -> Sequence[Suite]:
        """``suites`` without the plans that tmt would not run; it is asked once, and only where it may say no."""
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

    def _judge(self, turn: _Turn) -> SuiteVerdict:
        suite = turn.suite
        if suite.problem:
            return unreadable(suite.name, suite.problem)
        if turn.deadline.passed:
            return no_time(suite.name, self.tests_timeout)
        for number in range(1, TRIES):
            try:
                verdict = self._on_fresh_guest(turn)
            except InfrastructureError as error:
                self.progress(f"{suite.name}: {error.message}; once more, on a fresh guest")
            else:
                if not verdict.retryable or turn.deadline.passed:
                    return verdict
                self.progress(f"{suite.name}: {verdict.evidence}; once more, on a fresh guest")
            _set_aside(turn.place, f"try-{number}")
        return self._on_fresh_guest(turn, final=True)

    def _on_fresh_guest(self, turn: _Turn, *, final: bool = False) -> SuiteVerdict:
        verdict = None
        try:
            with self.host.boot(self.image, self.base.ssh_key, turn.place / "guest", self.boot_timeout) as guest:
                verdict = self._run(turn, self.image, guest)
                if final or not verdict.retryable:
                    self.ended(guest, verdict, turn.last)
        except InfrastructureError as error:
            if verdict is None:
                raise
            # What the suite said stands: a failing test is not run again because its guest ended badly.
            self.progress(f"{turn.suite.name}: {error.message}")
        return verdict

    def _run(self, turn: _Turn, image: Path, guest: Guest) -> SuiteVerdict:
        run = self.runner_for(turn.suite, turn.checkout, image)
        seen = run(guest, turn.place / "artifacts", min(self.suite_timeout, max(turn.deadline.remaining(), 1.0)))
        return judge(seen, guest.console_tail())

    # -- blame on red ------------------------------------------------------------------------------------------------

    def _explained(self, checkout: Path, one: JudgedSuite, deadline: Deadline) -> JudgedSuite:
        """The same verdict, with what two more runs of the suite say about it."""
        if one.verdict.verdict == "PASS" or one.verdict.retryable or one.suite.problem:
            return one
        if deadline.passed:
            return replace(one, rerun=Rerun("cannot be told", "no time was left to run it again"))
        try:
            found = self._run_again(_Turn(checkout, one.suite, one.directory, False, deadline), one.verdict)
        except InfrastructureError as error:
            # It was asked for beside the verdict, which stands without it.
            found = Rerun("cannot be told", f"it could not be run again: {error.message}")
        self.progress(f"{one.suite.name}: {found.finding}: {found.evidence}")
        return replace(one, rerun=found)

    def _run_again(self, turn: _Turn, first: SuiteVerdict) -> Rerun:
        name = turn.suite.name
        self.progress(f"{name}: again on the same image, to find out whether it is flaky")
        one = replace(turn, place=turn.place / "again")
        with self.host.boot(self.image, self.base.ssh_key, one.place / "guest", self.boot_timeout) as guest:
            again = self._run(one, self.image, guest)
        told = explain(first, again, None)
        if told.finding == "flaky":
            return told
        self.progress(f"{name}: on the base without the change")
        one = replace(turn, place=turn.place / "without")
        with self.host.boot(self.base.path, self.base.ssh_key, one.place / "guest", self.boot_timeout) as guest:
            absent = self._absent(guest)
            without = None if absent else self._run(one, self.base.path, guest)
        return explain(first, again, without, absent)

    def _absent(self, guest: Guest) -> tuple[str, ...]:
        """The packages under test of which the guest holds no version: a suite that fails there says nothing."""
        said = guest.run("rpm -qa --qf '%{NAME}\\n'", _ASK_SECONDS)
        there = set(said.stdout.split())
        return tuple(sorted({package.name for package in self.packages} - there))


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
    """What runs suites of any kind for packages of ``branch``; ``tag`` is that of the Standard Test Interface, and
    playbooks get the extra ``variables``. See AnsibleSuites for the other arguments."""
    return _Runners(branch, roles_path, ansible or {}, srpm, tag, variables or {})


def source_rpm(directory: Path) -> Path | None:
    """The source RPM among a build's files, which some suites unpack; None when it is not there."""
    return next(iter(sorted(directory.glob("*.src.rpm"))), None)


def directories(suites: Sequence[Suite], room: Path) -> list[Path]:
    """A directory below ``room`` for each suite, named after it: tests/tests_python.yml is ``tests_python``."""
    taken: dict[str, int] = {}
    found = []
    for suite in suites:
        words = suite.name.removesuffix(".yml").removeprefix("tests/")
        name = _ODD.sub("-", words).strip("-.")[:100] or "suite"
        taken[name] = taken.get(name, 0) + 1
        found.append(room / (name if taken[name] == 1 else f"{name}.{taken[name]}"))
    return found


def status_of(judged: Sequence[JudgedSuite]) -> RunVerdict:
    """The verdict on the run that these suites make: SUCCESS, UNSTABLE, or FAILURE when one could not be run."""
    return run_verdict([one.verdict for one in judged])


def failure_of(judged: Sequence[JudgedSuite]) -> DistgateError:
    """The error of suites whose status is FAILURE: GaveUp when our side is to blame, else TestsError."""
    bad = [one.verdict for one in judged if one.verdict.verdict in ("ERROR", "NOTHING_RUN")]
    evidence = "\n".join(f"{one.suite.name}: {one.verdict.verdict}: {one.verdict.evidence}" for one in judged)
    said = f"{len(bad)} of {len(judged)} test suites could not be run: {bad[0].evidence}"
    kind = GaveUp if any(one.retryable for one in bad) else TestsError
    return kind(said, hint="the runner's log in the suite's artifacts has every step", evidence=evidence)


def _set_aside(place: Path, name: str) -> None:
    """Keep what a try left, as evidence, and make room for the next."""
    old = place / name
    old.mkdir(parents=True)
    for left in list(place.iterdir()):
        if not left.name.startswith("try-"):
            shutil.move(left, old / left.name)
