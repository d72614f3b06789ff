"""The outcome ladder, written once: whatever ends a run, its summary is on the run's page before it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.capsule import VerdictRecord
from distgate.drivers.base import ComposedImage
from distgate.errors import Cancelled, DistgateError
from distgate.plain_text import inline
from distgate.smoke import SmokeReport
from distgate.stage_times import stage_times
from tasks.build import BuiltPackage
from tasks.claim import Job
from tasks.functional import Plan, TestReport
from tasks.stage import ledger
from tasks.summary_page import summary_page


@dataclass
class Report:
    """What the stages of one run have returned so far."""

    job: Job
    built: BuiltPackage | None = None
    image: ComposedImage | None = None
    smoke: SmokeReport | None = None
    plan: Plan | None = None
    verdict: TestReport | None = None
    error: BaseException | None = None

    @property
    def status(self) -> str:
        if self.error is not None:
            return "FAILURE" if isinstance(self.error, Exception) and not self.cancelled else "ABORTED"
        return self.verdict.status if self.verdict else "SUCCESS"

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, Cancelled)

    def sentence(self) -> str:
        """The verdict in one sentence, with who is to blame when it is not SUCCESS."""
        title = self.job.change.title
        if isinstance(self.error, DistgateError):
            return f"{title}: {self.error.message} (blame: {self.error.blame})"
        if self.error is not None and not isinstance(self.error, Exception):
            return f"{title}: ended from outside ({type(self.error).__name__})"
        if self.error is not None:
            return f"{title}: {type(self.error).__name__}: {self.error} (blame: a bug of distgate)"
        if self.verdict is not None:
            return f"{title}: {self.verdict.sentence}"
        return f"{title}: built and booted; functional tests skipped, {self.skipped}"

    def record(self) -> VerdictRecord:
        """The verdict as the capsule has it."""
        suites = self.verdict.suites if self.verdict else ()
        blamed = [self.error.blame] if isinstance(self.error, DistgateError) else [one.blame for one in suites]
        return VerdictRecord(status=self.status, sentence=self.sentence(), blame=next(filter(None, blamed), ""))

    @property
    def skipped(self) -> str:
        """Why the functional tests were skipped."""
        return self.plan.tests.reason if self.plan else ""

    def state(self) -> State[Any]:
        """The state that Prefect shows: Completed, or Unstable when tests ran and some did not pass."""
        if self.status == "UNSTABLE":
            return Completed(name="Unstable", message=self.sentence())
        return Completed(message=self.sentence())


@contextmanager
def reported(job: Job) -> Iterator[Report]:
    """Collect what the stages return, and write the summary however they end. The error passes through."""
    report = Report(job)
    try:
        yield report
    except BaseException as error:
        report.error = error
        raise
    finally:
        _publish_or_say(report)


def _publish_or_say(report: Report) -> None:
    try:
        _publish(report)
    except Exception:  # noqa: BLE001 - a rung of the ladder
        # The verdict stands whether its page could be written or not.
        get_run_logger().exception("%s: the summary could not be written", report.job.change.title)


def _publish(report: Report) -> None:
    run = ledger().run(report.job.run_id)
    times = stage_times(ledger().letters_of(report.job.run_id), run.build_id) if run else []
    get_run_logger().info("%s %s", report.status, report.sentence())
    capsule = report.job.capsule.note(verdict=report.record())
    if capsule.held:
        # Its time is counted from the end of the run, which is now but for seconds.
        held = capsule.held.model_copy(update={"until": time.time() + 60.0 * report.job.reserve})
        capsule = report.job.capsule.note(held=held)
    page = summary_page(report, capsule, run, times)
    create_markdown_artifact(page, key="summary", description=inline(report.sentence()))
    create_table_artifact([time.row() for time in times], key="stages", description="Stages, durations, statuses")
    room = report.job.room
    if room.base_url:
        create_link_artifact(room.url(room.root), key="artifacts", link_text="logs and artifacts of this run")
