"""A run done again by hand: the same stages from the recorded inputs, with neither Prefect, broker nor ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from distgate.errors import ConfigurationError, PackageError, TestsError
from distgate.files import RUN_RECORD
from distgate.guests.base import Guest, GuestHost
from distgate.images.base import BaseImage, ComposedImage, ImageComposer
from distgate.images.smoke import SmokeBoot
from distgate.runners.session import NONE_ENABLED, RunnerFor, SuiteSession, failure_of, status_of
from distgate.runs.inputs import RecordedInputs
from distgate.runs.record import (
    BuildRecord,
    ComposeRecord,
    RunRecord,
    RunRecordFile,
    SmokeRecord,
    SuiteRecord,
    TestsRecord,
    VerdictRecord,
)
from distgate.runs.recording import compose_begun, compose_record, suite_record
from distgate.runs.search import RecordedRun
from distgate.steps import Progress, Steps
from distgate.testing.discovery import Discovery, Suite, discover
from distgate.testing.junit import junit
from distgate.testing.verdict import SuiteVerdict

Keep = Callable[[Guest, str], None]
"""Receives a running guest, and why it is kept."""


@dataclass(frozen=True)
class Workbench:
    """The means to do runs again on this machine; timeouts are in seconds.

    ``runners`` gives the runner of suites for a branch and a directory of RPMs. ``stores`` are directories of base
    images, ``base`` the record of one to be used instead of the recorded one. ``keep`` receives the guest of the
    first failing suite, else that of the last; None keeps none.
    """

    host: GuestHost
    composer: ImageComposer
    runners: Callable[[str, Path], RunnerFor]
    boot_timeout: float
    suite_timeout: float
    tests_timeout: float = math.inf
    stores: Sequence[Path] = ()
    base: Path | None = None
    keep: Keep | None = None


@dataclass(frozen=True)
class Comparison:
    """The records of the run and of its reproduction; ``differences`` are sentences about inputs that changed."""

    recorded: RunRecord
    here: RunRecord
    directory: Path
    differences: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """The verdict here: SUCCESS, UNSTABLE or FAILURE."""
        return self.here.verdict.status if self.here.verdict else ""

    @property
    def suites(self) -> list[tuple[SuiteRecord | None, SuiteRecord | None]]:
        """Each suite's recorded result and its result here; None where it was not run."""
        old = {suite.suite: suite for suite in (self.recorded.tests.suites if self.recorded.tests else ())}
        new = {suite.suite: suite for suite in (self.here.tests.suites if self.here.tests else ())}
        return [(old.get(name), new.get(name)) for name in (new if new else old)]

    @property
    def same(self) -> bool:
        """Whether every suite that was run here has its recorded verdict, or else the run has its."""
        if any(new for _, new in self.suites):
            return all(old is not None and new is not None and _alike(old, new) for old, new in self.suites)
        return self.recorded.verdict is not None and self.recorded.verdict.status == self.status


def _alike(old: SuiteRecord, new: SuiteRecord) -> bool:
    return (old.verdict, failing(old)) == (new.verdict, failing(new))


def failing(suite: SuiteRecord) -> tuple[str, ...]:
    """The tests of a suite that did not pass."""
    return tuple(sorted({test.name for test in suite.tests if test.result in ("fail", "error", "warn")}))


@dataclass
class Reproduction:
    """The stages of ``original`` in the new directory ``into``; ``only`` names the suites to run, none means all."""

    original: RecordedRun
    into: Path
    bench: Workbench
    progress: Progress
    only: Sequence[str] = ()
    differences: list[str] = field(default_factory=list)

    def run(self) -> Comparison:
        """Run the stages. Failures of the package or its tests are the verdict; errors of ours are raised.

        Raises ConfigurationError when the run was not built, or an input is not there, and InfrastructureError.
        """
        recorded = self.original.record
        build = recorded.build
        if build is None or not build.rpms:
            raise ConfigurationError(f"run {recorded.run_id} built no packages that could be tested")
        file = RunRecordFile(self.into / RUN_RECORD)
        file.begin(recorded.run_id, recorded.build_id, recorded.site, recorded.change)
        file.update(build=build)
        try:
            verdict = self._stages(build, file)
        except (PackageError, TestsError) as error:
            verdict = VerdictRecord(status="FAILURE", sentence=error.message, blame=error.blame)
            self.progress(f"{error.message}\n{error.evidence}".rstrip())
        here = file.update(verdict=verdict)
        return Comparison(recorded, here, self.into, tuple(self.differences))

    def _stages(self, build: BuildRecord, file: RunRecordFile) -> VerdictRecord:
        steps = Steps(self.progress)
        inputs = RecordedInputs(self.original.record, self.original.directory, self.progress, self._differs)
        base = self._base(inputs)
        with steps.step("packages"):
            inputs.packages(self.into / "build", build)
        with steps.step("checkout"):
            plan = self._plan(inputs, build)
        file.update(tests=TestsRecord(kind=plan.tests.kind, reason=plan.tests.reason), compose=compose_begun(base))
        with steps.step("image"):
            image = self._image(build, base)
        file.update(compose=compose_record(image, base, self.into))
        with steps.step("smoke test"):
            file.update(smoke=self._smoke(image, base, alone=not plan.suites))
        if not plan.suites:
            return VerdictRecord(status="SUCCESS", sentence=f"built and booted; no tests: {plan.tests.reason}")
        with steps.step("tests"):
            return self._tests(plan, image, base, file)

    def _base(self, inputs: RecordedInputs) -> BaseImage:
        composed = self.original.record.compose
        return inputs.base(composed.base if composed else None, self.bench.stores, self.bench.base)

    def _plan(self, inputs: RecordedInputs, build: BuildRecord) -> _TestPlan:
        change = self.original.record.change
        tree = inputs.checkout(self.into / "checkout" / change.repo, build)
        discovery = discover(tree, namespace=change.namespace)
        return _TestPlan(tree, discovery, chosen(discovery.to_run, self.only))

    def _image(self, build: BuildRecord, base: BaseImage) -> ComposedImage:
        recorded = self.original.record.compose
        into = self.into / "image" / f"{build.nvr}.qcow2"
        if recorded is not None and recorded.way == "full":
            whole = self._whole(recorded, build, into)
            if whole is not None:
                return whole
            self._differs("the image is made on the base image, the run made it as a whole")
        return self.bench.composer.compose(base, self.into / "build", build.packages, into, self.progress)

    def _whole(self, recorded: ComposeRecord, build: BuildRecord, into: Path) -> ComposedImage | None:
        """The run's own image, if it stands alone: making one anew takes an installer and half an hour."""
        disk = self.original.directory / recorded.image
        if not disk.is_file():
            return None
        into.parent.mkdir(parents=True)
        into.symlink_to(disk.resolve())
        self.progress(f"the run's own image {disk.name}, which was made as a whole")
        return ComposedImage(
            path=into,
            base=recorded.base.identity,
            backing=None,
            installed=(),
            requested=build.packages,
            size=disk.stat().st_size,
            way="full",
        )

    def _smoke(self, image: ComposedImage, base: BaseImage, *, alone: bool) -> SmokeRecord:
        keep = self.bench.keep or (lambda _guest, _why: None)
        boot = SmokeBoot(self.bench.host, self.bench.boot_timeout, failed=keep)
        if alone:
            boot = replace(boot, passed=keep)
        report = boot.test(image, base, self.into / "smoke")
        self.progress(report.sentence)
        return SmokeRecord(passed=report.passed, sentence=report.sentence)

    def _tests(self, plan: _TestPlan, image: ComposedImage, base: BaseImage, file: RunRecordFile) -> VerdictRecord:
        session = SuiteSession(
            host=self.bench.host,
            base=base,
            image=image.path,
            packages=image.requested,
            runner_for=self.bench.runners(self.original.record.change.branch, self.into / "build"),
            boot_timeout=self.bench.boot_timeout,
            suite_timeout=self.bench.suite_timeout,
            tests_timeout=self.bench.tests_timeout,
            progress=self.progress,
            ended=self._guest_keeper(),
        )
        directory = self.into / "tests"
        judged = session.run(plan.checkout, plan.suites, directory)
        (directory / "junit.xml").write_text(junit([suite.verdict for suite in judged]), encoding="utf-8")
        records = tuple(suite_record(suite, self.into) for suite in judged)
        file.update(tests=TestsRecord(kind=plan.tests.kind, reason=plan.tests.reason, suites=records))
        status = status_of(judged)
        if status == "FAILURE":
            failure = failure_of(judged)
            return VerdictRecord(status=status, sentence=failure.message, blame=failure.blame)
        blame = next((str(record.blame) for record in records if record.blame), "")
        sentence = "; ".join(f"{record.suite}: {record.evidence}" for record in records)
        return VerdictRecord(status=status, sentence=sentence or f"built and booted; {NONE_ENABLED}", blame=blame)

    def _guest_keeper(self) -> Callable[[Guest, SuiteVerdict, bool], None]:
        """Keeps one guest: that of the first suite that does not pass, else that of the last one."""
        guests: list[str] = []

        def ended(guest: Guest, verdict: SuiteVerdict, last: bool) -> None:
            if self.bench.keep and not guests and (last or verdict.verdict != "PASS"):
                guests.append(guest.name)
                self.bench.keep(guest, f"{verdict.suite}: {verdict.evidence}")

        return ended

    def _differs(self, sentence: str) -> None:
        self.differences.append(sentence)
        self.progress(f"not as recorded: {sentence}")


@dataclass(frozen=True)
class _TestPlan:
    checkout: Path
    tests: Discovery
    suites: tuple[Suite, ...]


def chosen(suites: Sequence[Suite], names: Sequence[str]) -> tuple[Suite, ...]:
    """Those of ``suites`` with one of ``names``, whole or the last part; all when there are no names.

    Raises ConfigurationError for a name that none has.
    """
    selected = []
    for name in names:
        matches = [suite for suite in suites if name in (suite.name, Path(suite.name).name, Path(suite.name).stem)]
        if not matches:
            available = ", ".join(suite.name for suite in suites) or "none"
            raise ConfigurationError(f"no suite is called {name!r}", hint=f"there are: {available}")
        selected += matches
    return tuple(suite for suite in suites if not names or suite in selected)
