"""The summary of a run as markdown: what a packager opens. Text from outside is quoted, never interpreted."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from distgate.errors import BLAMED, DistgateError
from distgate.ledger.runs import OutboxMessage, Run
from distgate.ledger.stage_times import StageTime
from distgate.pipelines import STAGES, Stage, split_topic, topic_of
from distgate.runs.directory import RunDirectory
from distgate.runs.record import RunRecord
from distgate.testing.log_excerpts import key_line
from distgate.text import fenced, inline
from tasks.page.commands import reproduce_section, run_again_section
from tasks.page.markdown import facts, table
from tasks.page.tests import failing_tests, suites_section

if TYPE_CHECKING:
    from tasks.page.report import Report

#: Characters of an error's evidence that are shown, from its end.
MOST_EVIDENCE = 3000
#: Logs that are shown beside a stage's error.
MOST_LOGS = 6
_KEY_LOGS = re.compile(r"(build\..*|test|transaction|console)\.log$|(ansible|tmt|upgrade)\.txt$")


def summary_page(
    report: Report, record: RunRecord, run: Run | None, times: Sequence[StageTime], messages: Sequence[OutboxMessage]
) -> str:
    """The markdown of a run's summary; ``record`` holds what the run wrote down, whatever ended it, ``messages`` are
    the messages about it so far."""
    run_dir = report.job.run_dir
    failed = [time.suffix for time in times if time.status != "SUCCESS"]
    # An error ends the run: it is of the last one. Tests that did not pass end nothing: the first one counts.
    bad = STAGES[report.job.pipeline][failed[-1 if report.error else 0]] if failed else None
    parts = [
        f"# {report.status}: {report.job.change.title}",
        _verdict(report, record),
        _logs_of(bad, run_dir) if bad else "",
        "## Stages\n\n" + table(("stage", "status", "seconds"), [tuple(time.row().values()) for time in times]),
        suites_section(record, run_dir) if report.plan else "",
        *report.sections(),
        reproduce_section(record, run_dir),
        run_again_section(report.status, record, bad.suffix if bad else ""),
        _facts(report),
        messages_section(report, run, messages),
        logs_section(run_dir),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(report: Report, record: RunRecord) -> str:
    """The verdict in one sentence, who is to blame, and the evidence: its key line first, then its end as it is."""
    error, blame = report.error, report.blame
    reason = report.reason.removesuffix(f" (blame: {blame})")
    parts = [f"**{inline(reason[:1].upper() + reason[1:])}**"]
    if blame:
        parts += [f"**Blame: {blame}.** That is {BLAMED[blame]}."]
    if isinstance(error, DistgateError):
        evidence = error.evidence.strip()
        line = key_line(evidence)
        parts += [f"**Evidence:** {inline(line)}"] if line and line not in report.reason else []
        parts += [f"**Hint:** {inline(error.hint)}"] if error.hint else []
        parts += [fenced(evidence[-MOST_EVIDENCE:])] if "\n" in evidence else []
    elif report.status == "UNSTABLE":
        parts += [failing_tests(record, report.job.run_dir)]
    return "\n\n".join(part for part in parts if part)


def _logs_of(stage: Stage, run_dir: RunDirectory) -> str:
    """Links to the logs of the stage that did not pass, key logs and the latest first; empty when it left none."""
    directories = [run_dir.root / name for name in stage.directories]
    logs = [path for path in run_dir.logs() if any(path.is_relative_to(directory) for directory in directories)]
    latest = sorted(logs, key=lambda path: (not _KEY_LOGS.match(path.name), -path.stat().st_mtime_ns))[:MOST_LOGS]
    links = ", ".join(run_dir.link(path, str(path.relative_to(run_dir.root))) for path in latest)
    return f"**Logs of `{stage.suffix}`:** {links}" if links else ""


def _facts(report: Report) -> str:
    change, built = report.job.change, report.built
    pairs = [
        ("package", f"{change.namespace}/{change.repo}, branch {change.branch}"),
        ("commit", f"`{change.rev}` {inline(change.summary)}"),
        ("committer", inline(change.username)),
    ]
    if built:
        pairs += [("NVR", inline(built.nvr)), ("Koji task", str(built.task_id))]
        pairs += [("unit tests (%check)", inline(built.unit_tests.evidence))]
    results = [(name, inline(result.sentence)) for name, result in report.results.items()]
    return "## What was tested\n\n" + facts([*pairs, *report.rows(), *results])


def messages_section(report: Report, run: Run | None, messages: Sequence[OutboxMessage]) -> str:
    """The messages of the run's current set, and the one that will end it."""
    if run is None:
        return ""
    sent = [message for message in messages if message.body["build_id"] == run.build_id]
    rows = [
        (
            time.strftime("%H:%M:%S", time.gmtime(message.created_at)),
            split_topic(message.topic)[1],
            message.body["status"],
        )
        for message in sent
    ]
    main = sent[0].topic.partition(".ci.pipeline.")[0] if sent else ""
    topic = topic_of(report.job.pipeline, "", "", main)
    heading = (
        f"Topics begin with `{topic}`; `build_id` is `{run.build_id}`. The last one, `complete`, says {report.status}"
    )
    return f"## Messages\n\n{heading} and is sent when the run ends.\n\n{table(('UTC', 'topic', 'status'), rows)}"


def logs_section(run_dir: RunDirectory) -> str:
    """Links to what is text for people, one line for each directory."""
    logs = [path.relative_to(run_dir.root) for path in run_dir.logs()]
    lines = [
        f"- {inline(str(directory))}: " + ", ".join(run_dir.link(run_dir.root / path, path.name) for path in paths)
        for directory, paths in groupby(logs, key=lambda path: path.parent)
    ]
    links = "\n".join(lines).replace("- .: ", "- ", 1)
    return f"## Logs and artifacts\n\nAll of it: `{run_dir.root}`\n\n{links}" if links else ""
