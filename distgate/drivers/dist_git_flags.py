"""Flags on commits in dist-git, over the HTTP API of the forge (pagure)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from distgate.drivers.report_http import ReportClient, required, secret
from distgate.reports.commit_flag import flag_of
from distgate.reports.notice import Notice


class DistGitFlags:
    """The dist-git at ``url``; the token must be one that may flag commits."""

    name = "dist-git-flag"

    def __init__(self, url: str, token: Path | None) -> None:
        self._url = required(url, "dist_git_flags_url").rstrip("/")
        word = secret(token, "dist_git_flags_token")
        self._client = ReportClient("dist-git", {"Authorization": f"token {word}"})

    def deliver(self, notice: Notice) -> bool:
        """Set the commit's flag, or change it: safe to repeat, as its ID stays the same."""
        flag = flag_of(notice)
        if flag is None:
            return False
        # All of them, the percentage too: a form without one is answered with an error of the server.
        form = {
            "username": flag.username,
            "comment": flag.comment,
            "url": flag.url,
            "status": flag.status,
            "uid": flag.uid,
            "percent": str(flag.percent),
        }
        self._client.call("POST", f"{self._url}/api/0/{quote(flag.path)}", data=form)
        return True
