"""Results for ResultsDB, over its HTTP API v2.0."""

from __future__ import annotations

from pathlib import Path

import httpx

from distgate.drivers.report_http import ReportClient, required, secret
from distgate.reports.notice import Notice
from distgate.reports.results import MARK, result_of
from distgate.reports.speaker import Speaker


class ResultsDb:
    """The ResultsDB at ``url`` (up to /api/v2.0). With ``user`` the secret is a password, else a bearer token, and
    without a secret we are nobody."""

    name = "resultsdb"

    def __init__(self, url: str, speaker: Speaker, *, user: str = "", secret_file: Path | None = None) -> None:
        self._url = required(url, "resultsdb_url").rstrip("/")
        self._speaker = speaker
        word = secret(secret_file, "resultsdb_secret") if user or secret_file else ""
        basic = httpx.BasicAuth(user, word) if user else None
        self._client = ReportClient(
            "ResultsDB", {"Authorization": f"Bearer {word}"} if word and not user else None, basic
        )

    def deliver(self, notice: Notice) -> bool:
        """Post the result, if the notice is one. Posting makes a new result each time: one whose earlier try may
        have arrived is looked for first."""
        result = result_of(notice, self._speaker)
        if result is None:
            return False
        if not (notice.repeated and self._known(notice.message_id)):
            self._client.call("POST", f"{self._url}/results", json=result)
        return True

    def _known(self, message_id: str) -> bool:
        found = self._client.call("GET", f"{self._url}/results", params={MARK: message_id, "limit": "1"})
        return bool(isinstance(found, dict) and found.get("data"))
