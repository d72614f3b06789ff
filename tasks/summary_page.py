"""The summary of a run as markdown: what a packager opens. Whatever strangers wrote is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distgate.errors import DistgateError
from distgate.ledger import Run
from distgate.plain_text import fenced, inline
from distgate.stage_times import StageTime

if TYPE_CHECKING:
    from tasks.summary import Report


def summary_page(report: Report, run: Run | None, times: list[StageTime]) -> str:
    """The markdown of a run's summary."""
    parts = [
        f"# {report.status}: {report.job.change.title}",
        inline(report.sentence()),
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
    hint = f"**Hint:** {inline(error.hint)}\n\n" if error.hint else ""
    return hint + (fenced(error.evidence[-3000:]) if error.evidence else "")


def _facts(report: Report, run: Run | None) -> str:
    change = report.job.change
    rows = [
        ("package", f"{change.namespace}/{change.repo}"),
        ("branch", change.branch),
        ("commit", f"`{change.rev}` {inline(change.summary)}"),
        ("committer", inline(change.username)),
    ]
    if report.built:
        rows += [("NVR", report.built.nvr), ("Koji task", str(report.built.task_id))]
    if report.image:
        rows += [("image", report.job.room.link(report.image.path, report.image.path.name))]
        rows += [("installed", ", ".join(map(str, report.image.requested)))]
    if report.smoke:
        rows += [("smoke test", inline(report.smoke.sentence))]
    if run:
        rows += [("build_id on the bus", f"`{run.build_id}`")]
    return _table(("", ""), rows)


def _suites(report: Report) -> str:
    if report.verdict is None:
        return f"## Tests\n\nSkipped: {inline(report.skipped)}" if report.plan else ""
    rows = [
        (inline(s.suite), s.verdict, inline(test.name), test.result)
        for s in report.verdict.suites
        for test in s.tests
    ]
    lines = "\n".join(f"- **{inline(s.suite)}**: {s.verdict}. {inline(s.evidence)}" for s in report.verdict.suites)
    return f"## Tests\n\n{lines}\n\n" + _table(("suite", "verdict", "test", "result"), rows)


def _artifacts(report: Report) -> str:
    room = report.job.room
    links = "\n".join(f"- {room.link(path, str(path.relative_to(room.root)))}" for path in room.logs())
    return f"## Logs and artifacts\n\nAll of it: `{room.root}`\n\n{links}" if links else ""


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    def line(cells: tuple[object, ...]) -> str:
        return "| " + " | ".join(map(str, cells)) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])
