"""What the summary of a run says of suites: why each ended as it did, and every test with links to its logs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from distgate.files import tail_of
from distgate.runs.directory import RunDirectory
from distgate.runs.record import RunRecord, SuiteRecord, TestRecord
from distgate.testing.log_excerpts import failure_excerpt
from distgate.testing.results import LOG_END
from distgate.testing.verdict import worst_first
from distgate.text import fenced, inline
from tasks.page.markdown import table

#: Tests of one suite that the page shows; junit.xml has them all.
MOST_ROWS = 200
#: Failing tests whose logs are quoted, and logs of one test that are linked.
MOST_QUOTED = 3
MOST_LINKS = 5
_FINE = ("pass", "info", "skip")


def suites_section(record: RunRecord, room: RunDirectory) -> str:
    """The suites with their verdicts, and a row for each test; empty when it is not known which there are."""
    tests = record.tests
    if tests is None or not tests.suites:
        return f"## Tests\n\nSkipped: {inline(tests.reason)}" if tests and tests.reason else ""
    lines = "\n".join(_suite_line(one) for one in tests.suites)
    details = "\n\n".join(fenced(one.details[-3000:]) for one in tests.suites if one.details)
    rows = [
        (inline(one.suite), inline(test.name), test.result, _links(one, test, room))
        for one in tests.suites
        for test in worst_first(one.tests, MOST_ROWS)
    ]
    every = table(("suite", "test", "result", "logs"), rows) if rows else ""
    results = room.link(room.root / "tests" / "junit.xml", "junit.xml")
    return "\n\n".join(part for part in ("## Tests", lines, details, every, f"As JUnit XML: {results}") if part)


def failing_tests(record: RunRecord, room: RunDirectory) -> str:
    """The first tests that did not pass, each with what its log says and a link to it; empty when there is none."""
    found = _failing(record)
    quoted = "\n\n".join(_quoted(suite, test, room) for suite, test in found[:MOST_QUOTED])
    more = f"\n\n... and {len(found) - MOST_QUOTED} more, see below" if len(found) > MOST_QUOTED else ""
    return quoted + more


def _failing(record: RunRecord) -> list[tuple[SuiteRecord, TestRecord]]:
    suites = record.tests.suites if record.tests else ()
    return [(suite, test) for suite in suites for test in suite.tests if test.result not in _FINE]


def _quoted(suite: SuiteRecord, test: TestRecord, room: RunDirectory) -> str:
    name = f"**Evidence:** {inline(suite.suite)}: {inline(test.name)} ({test.result})"
    note = f", {inline(test.note)}" if test.note else ""
    logs = list(_logs(suite, test, room))
    link = f", {room.link(logs[0], logs[0].name)}" if logs else ""
    said = failure_excerpt(tail_of(logs[0], LOG_END), test.name) if logs else ""
    return f"{name}{note}{link}" + (f"\n\n{fenced(said)}" if said else "")


def _suite_line(one: SuiteRecord) -> str:
    blame = f" (blame: {one.blame})" if one.blame else ""
    rerun = f" Run again: **{one.rerun.words}**, {inline(one.rerun.evidence)}." if one.rerun else ""
    notes = "".join(f"\n  - {inline(test.name)}: {inline(test.note)}" for test in one.tests[:MOST_ROWS] if test.note)
    return f"- **{inline(one.suite)}** ({one.kind}): {one.verdict}{blame}. {inline(one.evidence)}{rerun}{notes}"


def _links(one: SuiteRecord, test: TestRecord, room: RunDirectory) -> str:
    artifacts = _artifacts(one, room)
    return ", ".join(room.link(path, str(path.relative_to(artifacts))) for path in _logs(one, test, room))


def _logs(one: SuiteRecord, test: TestRecord, room: RunDirectory) -> Iterator[Path]:
    """A test's logs. The names are the suite's words: only what lies in its artifacts is shown."""
    artifacts = _artifacts(one, room)
    for name in test.logs[:MOST_LINKS]:
        path = Path(os.path.normpath(artifacts / name))
        inside = path.is_relative_to(artifacts) and path.is_file()
        if inside and path.resolve() == artifacts.resolve() / path.relative_to(artifacts):  # through no link
            yield path


def _artifacts(one: SuiteRecord, room: RunDirectory) -> Path:
    return room.root / one.directory / "artifacts"
