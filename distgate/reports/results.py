"""Runs as results for ResultsDB: one for each stage that tests something, and one for the whole pipeline."""

from __future__ import annotations

from typing import Any

from distgate.reports.notice import TESTS, Notice, colour_of
from distgate.reports.speaker import Speaker

#: The data field by which a result that may have arrived is looked for before it is posted again.
MARK = "distgate_message"
#: ResultsDB's own four outcomes and no other: what else there may be is each site's choice.
_OUTCOMES = {"SUCCESS": "PASSED", "UNSTABLE": "FAILED"}


def result_of(notice: Notice, speaker: Speaker) -> dict[str, Any] | None:
    """The result to post for a notice (API v2.0); None when the notice is no result.

    Of an end that says nothing about the package somebody must look: NEEDS_INSPECTION. A run without tests of the
    package's own passed nothing: INFO.
    """
    if notice.state != "complete" or (notice.suffix not in TESTS and not notice.last):
        return None
    name = TESTS[notice.suffix][0] if notice.suffix else "pipeline"
    testcase: dict[str, str] = {"name": f"{speaker.namespace}.koji-build.{notice.pipeline}.{name}"}
    if speaker.docs:
        testcase["ref_url"] = speaker.docs
    return {
        "testcase": testcase,
        "outcome": _verdict(notice) if notice.last else _OUTCOMES.get(notice.own_status, "NEEDS_INSPECTION"),
        "ref_url": notice.build_url,
        "note": notice.words,
        "groups": [notice.build_id[:36]],
        "data": _data(notice, speaker),
    }


def _verdict(notice: Notice) -> str:
    if notice.status == "SUCCESS":
        return "PASSED" if notice.tested else "INFO"
    judged = notice.status == "UNSTABLE" or (notice.blame and colour_of(notice.status, notice.blame) == "red")
    return "FAILED" if judged else "NEEDS_INSPECTION"


def _data(notice: Notice, speaker: Speaker) -> dict[str, str]:
    built = notice.nvr.removesuffix(".src")
    commit = f"{notice.namespace}/{notice.repo}#{notice.rev}"
    known = {
        "item": built or commit,
        "type": "koji-build_scratch" if built else "dist-git-commit",
        "dist_git_commit": commit,
        "dist_git_branch": notice.branch,
        "scratch": "true",
        "log": speaker.log_of(notice),
        "blame": notice.blame,
        "koji_task_id": str(notice.task_id or ""),
        MARK: notice.message_id,
    }
    return {name: value for name, value in known.items() if value}
