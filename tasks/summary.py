"""The outcome ladder, written once: whatever ends a run, its summary is on the run's page before it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.drivers.base import ComposedImage
from distgate.errors import DistgateError
from distgate.ledger import Run
from distgate.smoke import SmokeReport
from distgate.stage_times import StageTime, stage_times
from tasks.build import BuiltPackage
from tasks.claim import Job
from tasks.functional import Plan, TestReport
from tasks.stage import ledger


@dataclass
class Report:
    """What the stages of one run have returned so far."""

    job: Job
    built: BuiltPackage | None = None
    image: ComposedImage | None = None
    smoke: SmokeReport | None = None
    plan: Plan | None = None
    verdict: TestReport | None = None
    error: Exception | None = None

    @property
    def status(self) -> str:
        if self.error is not None:
            return "FAILURE"
        return self.verdict.status if self.verdict else "SUCCESS"

    def sentence(self) -> str:
        """The verdict in one sentence, with who is to blame when it is not SUCCESS."""
        title = self.job.change.title
        if isinstance(self.error, DistgateError):
            return f"{title}: {self.error.message} (blame: {self.error.blame})"
        if self.error is not None:
            return f"{title}: {type(self.error).__name__}: {self.error} (blame: a bug of distgate)"
        if self.verdict is not None:
            return f"{title}: {self.verdict.sentence}"
        return f"{title}: built and booted; functional tests skipped, {self.skipped}"

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
    except Exception as error:
        report.error = error
        raise
    finally:
        _publish(report)


def _publish(report: Report) -> None:
    run = ledger().run(report.job.run_id)
    times = stage_times(ledger().letters_of(report.job.run_id), run.build_id) if run else []
    get_run_logger().info("%s %s", report.status, report.sentence())
    create_markdown_artifact(_markdown(report, run, times), key="summary", description=report.sentence())
    create_table_artifact([time.row() for time in times], key="stages", description="Stages, durations, statuses")
    room = report.job.room
    if room.base_url:
        create_link_artifact(room.url(room.root), key="artifacts", link_text="logs and artifacts of this run")


def _markdown(report: Report, run: Run | None, times: list[StageTime]) -> str:
    parts = [
        f"# {report.status}: {report.job.change.title}",
        report.sentence(),
        _evidence(report),
        _facts(report, run),
        "## Stages\n\n" + _table(("stage", "status", "seconds"), [tuple(t.row().values()) for t in times]),
        _suites(report),
        _artifacts(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _evidence(report: Report) -> str:
    error = report.error
    if not isinstance(error, DistgateError):
        return ""
    hint = f"**Hint:** {error.hint}\n\n" if error.hint else ""
    return hint + (f"```\n{error.evidence[-3000:]}\n```" if error.evidence else "")


def _facts(report: Report, run: Run | None) -> str:
    change = report.job.change
    rows = [
        ("package", f"{change.namespace}/{change.repo}"),
        ("branch", change.branch),
        ("commit", f"`{change.rev}` {change.summary}"),
        ("committer", change.username),
    ]
    if report.built:
        rows += [("NVR", report.built.nvr), ("Koji task", str(report.built.task_id))]
    if report.image:
        rows += [("image", report.job.room.link(report.image.path, report.image.path.name))]
        rows += [("installed", ", ".join(map(str, report.image.requested)))]
    if report.smoke:
        rows += [("smoke test", report.smoke.sentence)]
    if run:
        rows += [("build_id on the bus", f"`{run.build_id}`")]
    return _table(("", ""), rows)


def _suites(report: Report) -> str:
    if report.verdict is None:
        return f"## Tests\n\nSkipped: {report.skipped}" if report.plan else ""
    rows = [(s.suite, s.verdict, test.name, test.result) for s in report.verdict.suites for test in s.tests]
    lines = "\n".join(f"- **{s.suite}**: {s.verdict}. {s.evidence}" for s in report.verdict.suites)
    return f"## Tests\n\n{lines}\n\n" + _table(("suite", "verdict", "test", "result"), rows)


def _artifacts(report: Report) -> str:
    room = report.job.room
    links = "\n".join(f"- {room.link(path, str(path.relative_to(room.root)))}" for path in room.logs())
    return f"## Logs and artifacts\n\nAll of it: `{room.root}`\n\n{links}" if links else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    def line(cells: tuple[object, ...]) -> str:
        # What packages say ends in a table here: a bar or a line break must not break it.
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])
