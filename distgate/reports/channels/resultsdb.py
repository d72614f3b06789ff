"""Runs as results for ResultsDB (HTTP API v2.0): one for each stage that tests, and one for the whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from distgate.reports.http import ReportClient, required, secret
from distgate.reports.notice import RunEvent, package_verdict
from distgate.reports.reporter import ReporterIdentity
from distgate.settings import Settings

#: The data field by which a result that may have arrived is looked for before it is posted again.
MARK = "distgate_message"
#: ResultsDB's own four outcomes and no other: what else there may be is each site's choice.
_OUTCOMES = {"SUCCESS": "PASSED", "UNSTABLE": "FAILED"}


def result_of(notice: RunEvent, reporter: ReporterIdentity) -> dict[str, Any] | None:
    """The result to post for a notice (API v2.0); None when the notice is no result.

    An end that is no verdict on the package is NEEDS_INSPECTION. A run without tests of the
    package's own passed nothing: INFO.
    """
    test = notice.stage.test
    if notice.state != "complete" or (test is None and not notice.last):
        return None
    name = test.name if test else "pipeline"
    testcase: dict[str, str] = {"name": f"{reporter.namespace}.koji-build.{notice.pipeline}.{name}"}
    if reporter.docs:
        testcase["ref_url"] = reporter.docs
    return {
        "testcase": testcase,
        "outcome": _verdict(notice) if notice.last else _OUTCOMES.get(notice.own_status, "NEEDS_INSPECTION"),
        "ref_url": notice.build_url,
        "note": notice.headline,
        "groups": [notice.build_id[:36]],
        "data": _data(notice, reporter),
    }


def _verdict(notice: RunEvent) -> str:
    if notice.status == "SUCCESS":
        return "PASSED" if notice.tested else "INFO"
    judged = notice.status == "UNSTABLE" or (notice.blame and package_verdict(notice.status, notice.blame) == "red")
    return "FAILED" if judged else "NEEDS_INSPECTION"


def _data(notice: RunEvent, reporter: ReporterIdentity) -> dict[str, str]:
    built = notice.nvr.removesuffix(".src")
    commit = f"{notice.namespace}/{notice.repo}#{notice.rev}"
    fields = {
        "item": built or commit,
        "type": "koji-build_scratch" if built else "dist-git-commit",
        "dist_git_commit": commit,
        "dist_git_branch": notice.branch,
        "scratch": "true",
        "log": reporter.log_of(notice),
        "blame": notice.blame,
        "koji_task_id": str(notice.task_id or ""),
        MARK: notice.message_id,
    }
    return {name: value for name, value in fields.items() if value}


class ResultsDb:
    """The ResultsDB at ``url`` (up to /api/v2.0). With ``user`` the secret is a password, else a bearer token, and
    without a secret we are anonymous."""

    name = "resultsdb"

    def __init__(
        self, url: str, reporter: ReporterIdentity, *, user: str = "", secret_file: Path | None = None
    ) -> None:
        self._url = required(url, "resultsdb_url").rstrip("/")
        self._reporter = reporter
        password = secret(secret_file, "resultsdb_secret") if user or secret_file else ""
        basic = httpx.BasicAuth(user, password) if user else None
        self._client = ReportClient(
            "ResultsDB", {"Authorization": f"Bearer {password}"} if password and not user else None, basic
        )

    def deliver(self, notice: RunEvent) -> bool:
        """Post the result, if the notice is one. Posting makes a new result each time: one whose earlier try may
        have arrived is looked for first."""
        result = result_of(notice, self._reporter)
        if result is None:
            return False
        if not (notice.repeated and self._is_posted(notice.message_id)):
            self._client.call("POST", f"{self._url}/results", json=result)
        return True

    def _is_posted(self, message_id: str) -> bool:
        answer = self._client.call("GET", f"{self._url}/results", params={MARK: message_id, "limit": "1"})
        return bool(isinstance(answer, dict) and answer.get("data"))


def open_channel(settings: Settings) -> ResultsDb:
    """The channel as the settings describe it. Raises ConfigurationError for what is missing."""
    reporter = ReporterIdentity.of(settings)
    user, secret_file = settings.resultsdb_user, settings.resultsdb_secret
    return ResultsDb(settings.resultsdb_url, reporter, user=user, secret_file=secret_file)
