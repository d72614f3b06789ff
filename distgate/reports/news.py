"""News for people: the first red verdict, and the first that is green again; nothing for each red in between."""

from __future__ import annotations

from dataclasses import dataclass

from distgate.plain_text import printable
from distgate.reports.notice import Notice, colour_of


@dataclass(frozen=True)
class News:
    """A changed verdict: one line, and a text with where to look."""

    subject: str
    text: str


def news_of(notice: Notice) -> News | None:
    """The news in a notice; None when the verdict on this package, branch and pipeline is what it was."""
    colour = colour_of(notice.status, notice.blame) if notice.last else None
    if colour is None or colour == (notice.before or "green"):
        return None
    what = "works again" if colour == "green" else "fails"
    subject = f"{notice.repo} {notice.branch} {what} ({notice.pipeline}, {notice.rev[:7]} by {notice.username})"
    lines = [
        printable(notice.words, newlines=False),
        "",
        f"Commit: {notice.namespace}/{notice.repo} {notice.branch} {notice.rev}",
        *([f"Build: {notice.nvr}"] if notice.nvr else []),
        f"Run: {notice.build_url}",
    ]
    return News(printable(subject, newlines=False), "\n".join(lines) + "\n")
