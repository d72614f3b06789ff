"""The summary of a run as markdown: what a packager opens. Whatever strangers wrote is shown, never obeyed."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distgate.capsule import Capsule, SuiteRecord, TestRecord
from distgate.errors import DistgateError
from distgate.ledger import Run
from distgate.plain_text import fenced, inline
from distgate.run_directory import RunDirectory
from distgate.stage_times import StageTime
from distgate.verdict import worst_first

if TYPE_CHECKING:
    from tasks.summary import Report

#: Tests of one suite that the page shows; junit.xml has them all.
MOST_ROWS = 200


def summary_page(report: Report, capsule: Capsule, run: Run | None, times: list[StageTime]) -> str:
    """The markdown of a run's summary; ``capsule`` holds what the run wrote down, whatever ended it."""
    parts = [
        f"# {report.status}: {report.job.change.title}",
        inline(report.sentence()),
        _evidence(report),
        by_hand(report.status, capsule, report.job.room),
        _facts(report, run),
        "## Stages\n\n" + table(("stage", "status", "seconds"), [tuple(t.row().values()) for t in times]),
        suites_section(capsule, report.job.room) if report.plan else "",
        *report.sections(),
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
        rows += [("NVR", inline(report.built.nvr)), ("Koji task", str(report.built.task_id))]
        rows += [("unit tests (%check)", inline(report.built.unit_tests.evidence))]
    rows += report.rows()
    if run:
        rows += [("build_id on the bus", f"`{run.build_id}`")]
    return table(("", ""), rows)


def by_hand(status: str, capsule: Capsule, room: RunDirectory) -> str:
    """How to see it with one's own eyes: the guest that is held, and the command that does the run again."""
    if status == "SUCCESS":
        return ""
    lines = []
    if capsule.held:
        held = capsule.held
        until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(held.until))
        lines += [f"A guest is held until **{until}** on `{inline(held.host)}` ({inline(held.why)}):"]
        lines += [fenced(f"{held.ssh}\ndistgate guests down {held.name}")]
    if capsule.build:
        lines += ["The same again, by hand, on the host of this run:"]
        lines += [fenced(f"distgate reproduce {capsule.run_id}")]
        lines += [f"Elsewhere: copy `{room.root}` and name the copy: `distgate reproduce {room.root.name}`."]
    return "\n\n".join(["## By hand", *lines]) if lines else ""


def suites_section(capsule: Capsule, room: RunDirectory) -> str:
    """The suites, why each of them ended as it did, and every test with links to its logs."""
    tests = capsule.tests
    if tests is None or not tests.suites:
        return f"## Tests\n\nSkipped: {inline(tests.reason)}" if tests and tests.reason else ""
    lines = "\n".join(_suite_line(one) for one in tests.suites)
    details = "\n\n".join(fenced(one.details[-3000:]) for one in tests.suites if one.details)
    rows = [
        (inline(one.suite), one.verdict, inline(test.name), test.result, inline(test.note), _logs(one, test, room))
        for one in tests.suites
        for test in worst_first(one.tests, MOST_ROWS)
    ]
    every = table(("suite", "verdict", "test", "result", "note", "logs"), rows) if rows else ""
    results = room.link(room.root / "tests" / "junit.xml", "junit.xml")
    return "\n\n".join(part for part in ("## Tests", lines, details, every, f"As JUnit XML: {results}") if part)


def _suite_line(one: SuiteRecord) -> str:
    blame = f" (blame: {one.blame})" if one.blame else ""
    rerun = f" Run again: **{one.rerun.words}**, {inline(one.rerun.evidence)}." if one.rerun else ""
    return f"- **{inline(one.suite)}** ({one.kind}): {one.verdict}{blame}. {inline(one.evidence)}{rerun}"


def _logs(one: SuiteRecord, test: TestRecord, room: RunDirectory) -> str:
    """Links to a test's logs. The names are the suite's words: only what lies in its artifacts is linked."""
    artifacts = room.root / one.directory / "artifacts"
    found = []
    for name in test.logs[:5]:
        path = Path(os.path.normpath(artifacts / name))
        inside = path.is_relative_to(artifacts) and path.is_file()
        if inside and path.resolve() == artifacts.resolve() / path.relative_to(artifacts):  # through no link
            found.append(room.link(path, name))
    return ", ".join(found)


def _artifacts(report: Report) -> str:
    room = report.job.room
    links = "\n".join(f"- {room.link(path, str(path.relative_to(room.root)))}" for path in room.logs())
    return f"## Logs and artifacts\n\nAll of it: `{room.root}`\n\n{links}" if links else ""


def table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """A table in markdown; what is in ``rows`` must be safe already."""

    def line(cells: tuple[object, ...]) -> str:
        return "| " + " | ".join(map(str, cells)) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *(line(row) for row in rows)])
