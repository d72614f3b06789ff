"""What the run's page in the Prefect UI shows, for a terminal: the last log line, and artifacts."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx

from distgate.text import printable

SECONDS = 5.0


def last_log_line(api_url: str, run_id: str) -> str:
    """The newest line of the run's log, or nothing: a view must not fail because the server is busy."""
    query = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_DESC", "limit": 1}
    entries = _query(f"{api_url}/logs/filter", query)
    lines = printable(str(entries[0]["message"])).splitlines() if entries else []
    return lines[0] if lines else ""


def latest_artifact(api_url: str, run_id: str, key: str) -> str:
    """The text of the run's newest artifact with this key, or nothing."""
    query = {
        "artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}},
        "sort": "CREATED_DESC",
        "limit": 1,
    }
    artifacts = _query(f"{api_url}/artifacts/filter", query)
    return printable(str(artifacts[0]["data"])) if artifacts else ""


def _query(url: str, query: dict[str, Any]) -> list[dict[str, Any]]:
    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.post(url, json=query, timeout=SECONDS, trust_env=False)
        if answer.is_success:
            rows: list[dict[str, Any]] = answer.json()
            return rows
    return []
