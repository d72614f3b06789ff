"""The suites in the summary of a run: the verdict of each with its reason, and every test with links to its logs."""

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


def suites_section(record: RunRecord, run_dir: RunDirectory) -> str:
    """The suites with their verdicts, and a row for each test; empty before the tests were found."""
    tests = record.tests
    if tests is None or not tests.suites:
        return f"## Tests\n\nSkipped: {inline(tests.reason)}" if tests and tests.reason else ""
    lines = "\n".join(_suite_line(suite) for suite in tests.suites)
    details = "\n\n".join(fenced(suite.details[-3000:]) for suite in tests.suites if suite.details)
    rows = [
        (inline(suite.suite), inline(test.name), test.result, _links(suite, test, run_dir))
        for suite in tests.suites
        for test in worst_first(suite.tests, MOST_ROWS)
    ]
    every = table(("suite", "test", "result", "logs"), rows) if rows else ""
    results = run_dir.link(run_dir.root / "tests" / "junit.xml", "junit.xml")
    return "\n\n".join(part for part in ("## Tests", lines, details, every, f"As JUnit XML: {results}") if part)


def failing_tests(record: RunRecord, run_dir: RunDirectory) -> str:
    """The first tests that did not pass, each with what its log says and a link to it; empty when there is none."""
    failing = _failing(record)
    quoted = "\n\n".join(_quoted(suite, test, run_dir) for suite, test in failing[:MOST_QUOTED])
    more = f"\n\n... and {len(failing) - MOST_QUOTED} more, see below" if len(failing) > MOST_QUOTED else ""
    return quoted + more


def _failing(record: RunRecord) -> list[tuple[SuiteRecord, TestRecord]]:
    suites = record.tests.suites if record.tests else ()
    return [(suite, test) for suite in suites for test in suite.tests if test.result not in _FINE]


def _quoted(suite: SuiteRecord, test: TestRecord, run_dir: RunDirectory) -> str:
    name = f"**Evidence:** {inline(suite.suite)}: {inline(test.name)} ({test.result})"
    note = f", {inline(test.note)}" if test.note else ""
    logs = list(_logs(suite, test, run_dir))
    link = f", {run_dir.link(logs[0], logs[0].name)}" if logs else ""
    excerpt = failure_excerpt(tail_of(logs[0], LOG_END), test.name) if logs else ""
    return f"{name}{note}{link}" + (f"\n\n{fenced(excerpt)}" if excerpt else "")


def _suite_line(suite: SuiteRecord) -> str:
    blame = f" (blame: {suite.blame})" if suite.blame else ""
    rerun = f" Run again: **{suite.rerun.words}**, {inline(suite.rerun.evidence)}." if suite.rerun else ""
    notes = "".join(
        f"\n  - {inline(test.name)}: {inline(test.note)}" for test in suite.tests[:MOST_ROWS] if test.note
    )
    return (
        f"- **{inline(suite.suite)}** ({suite.kind}): {suite.verdict}{blame}. {inline(suite.evidence)}{rerun}{notes}"
    )


def _links(suite: SuiteRecord, test: TestRecord, run_dir: RunDirectory) -> str:
    artifacts = _artifacts(suite, run_dir)
    return ", ".join(run_dir.link(path, str(path.relative_to(artifacts))) for path in _logs(suite, test, run_dir))


def _logs(suite: SuiteRecord, test: TestRecord, run_dir: RunDirectory) -> Iterator[Path]:
    """A test's logs. The suite chose the names: only files in its artifacts are shown."""
    artifacts = _artifacts(suite, run_dir)
    for name in test.logs[:MOST_LINKS]:
        path = Path(os.path.normpath(artifacts / name))
        inside = path.is_relative_to(artifacts) and path.is_file()
        if inside and path.resolve() == artifacts.resolve() / path.relative_to(artifacts):  # through no link
            yield path


def _artifacts(suite: SuiteRecord, run_dir: RunDirectory) -> Path:
    return run_dir.root / suite.directory / "artifacts"
