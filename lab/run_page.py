"""What the run's page in the Prefect UI shows, for a terminal: the last log line, and artifacts."""

from __future__ import annotations

import contextlib
from typing import Any

import httpx

from distgate.text import printable

SECONDS = 5.0


def last_log_line(api_url: str, run_id: str) -> str:
    """The newest line of the run's log, or nothing: a view must not fail because the server is busy."""
    wish = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_DESC", "limit": 1}
    found = _ask(f"{api_url}/logs/filter", wish)
    lines = printable(str(found[0]["message"])).splitlines() if found else []
    return lines[0] if lines else ""


def latest_artifact(api_url: str, run_id: str, key: str) -> str:
    """The text of the run's newest artifact with this key, or nothing."""
    wish = {
        "artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}},
        "sort": "CREATED_DESC",
        "limit": 1,
    }
    found = _ask(f"{api_url}/artifacts/filter", wish)
    return printable(str(found[0]["data"])) if found else ""


def _ask(url: str, wish: dict[str, Any]) -> list[dict[str, Any]]:
    with contextlib.suppress(httpx.HTTPError, ValueError):
        answer = httpx.post(url, json=wish, timeout=SECONDS, trust_env=False)
        if answer.is_success:
            found: list[dict[str, Any]] = answer.json()
            return found
    return []
