"""The outcome ladder, written once: whatever ends a run, its summary is on the run's page before it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from distgate.errors import DistgateError
from distgate.ledger.runs import RunFacts
from distgate.ledger.stage_times import stage_times
from distgate.text import inline
from tasks.page.page import summary_page
from tasks.page.report import Report
from tasks.run.artifacts import upload_or_log
from tasks.run.stage import ledger

R = TypeVar("R", bound="Report")


@contextmanager
def publishes_summary(report: R) -> Iterator[R]:
    """Collect in ``report`` what the stages return, and write the summary however they end.

    A situation that distgate knows ends here, in ``report.state``; a bug passes through, and what ends the run from
    outside.
    """
    try:
        yield report
    except DistgateError as error:
        report.error = error
    except BaseException as error:
        report.error = error
        raise
    finally:
        _publish_or_log(report)


def _publish_or_log(report: Report) -> None:
    try:
        _publish(report)
    except Exception:  # noqa: BLE001 - a rung of the ladder
        # The verdict stands whether its page could be written or not.
        get_run_logger().exception("%s: the summary could not be written", report.job.change.title)
    upload_or_log(report.job.site, report.job.run_dir.root)


def _publish(report: Report) -> None:
    run = ledger().run(report.job.run_id)
    messages = ledger().messages_of(report.job.run_id)
    started = stage_times(messages, run.build_id, run.facts.statuses) if run else []
    # A stage that is broken off announces its end after this.
    times = [stage.closed(time.time(), report.status) for stage in started]
    get_run_logger().info("%s %s", report.status, report.sentence())
    verdict = report.record()
    ledger().record_facts(report.job.run_id, RunFacts(blame=verdict.blame, sentence=verdict.sentence))
    record = report.job.record.update(verdict=verdict)
    if record.held:
        # Its time is counted from the end of the run, which is now but for seconds.
        guest = replace(record.held, until=time.time() + 60.0 * report.job.reserve)
        record = report.job.record.update(held=guest)
    page = summary_page(report, record, run, times, messages)
    create_markdown_artifact(page, key="summary", description=inline(report.title))
    create_table_artifact([time.row() for time in times], key="stages", description="Stages, durations, statuses")
    run_dir = report.job.run_dir
    if run_dir.base_url:
        create_link_artifact(run_dir.url(run_dir.root), key="artifacts", link_text="logs and artifacts of this run")
