"""Runs as flags on the commit in dist-git, over the HTTP API of the forge (pagure): pending, then how it ended."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from distgate.bus.announce import trigger_key
from distgate.pipelines import STAGES
from distgate.reports.http import ReportClient, required, secret
from distgate.reports.notice import RunEvent, package_verdict
from distgate.settings import Settings

#: Names the IDs of our flags apart from those of others; never to be changed.
_FLAGS = uuid.UUID("3d0b1a52-8a60-4d59-a6a8-51f0a6c0d1f7")
#: What dist-git shows of a comment without breaking its page.
LONGEST = 200


@dataclass(frozen=True)
class Flag:
    """A flag as the API takes it. One ``uid`` per commit, branch and pipeline: a later report changes the flag."""

    path: str
    username: str
    comment: str
    url: str
    status: str
    uid: str
    percent: int


def flag_of(notice: RunEvent) -> Flag | None:
    """The flag to set for a notice; None when the notice changes nothing, or its run holds the commit no more."""
    if not notice.current or not (notice.last or notice.state == "running"):
        return None
    comment = notice.headline.removeprefix(f"{notice.title}: ")
    return Flag(
        path=f"{notice.namespace}/{notice.repo}/c/{notice.rev}/flag",
        username=f"distgate {notice.pipeline}",
        comment=comment if len(comment) <= LONGEST else f"{comment[: LONGEST - 3]}...",
        url=notice.build_url,
        status=_status(notice) if notice.last else "pending",
        uid=uuid.uuid5(_FLAGS, trigger_key(notice.pipeline, notice.key)).hex,
        percent=100 if notice.last else _percent(notice),
    )


def _status(notice: RunEvent) -> str:
    if notice.status == "SUCCESS":
        return "success"
    if notice.status == "ABORTED":
        return "canceled"
    return "failure" if package_verdict(notice.status, notice.blame) == "red" else "error"


def _percent(notice: RunEvent) -> int:
    stages = list(STAGES[notice.pipeline])
    return 100 * stages.index(notice.suffix) // len(stages)


class DistGitFlags:
    """The dist-git at ``url``; the token must be one that may flag commits."""

    name = "dist-git-flag"

    def __init__(self, url: str, token: Path | None) -> None:
        self._url = required(url, "dist_git_flags_url").rstrip("/")
        token_text = secret(token, "dist_git_flags_token")
        self._client = ReportClient("dist-git", {"Authorization": f"token {token_text}"})

    def deliver(self, notice: RunEvent) -> bool:
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


def open_channel(settings: Settings) -> DistGitFlags:
    """The channel as the settings describe it. Raises ConfigurationError for what is missing."""
    return DistGitFlags(settings.dist_git_flags_url, settings.dist_git_flags_token)
