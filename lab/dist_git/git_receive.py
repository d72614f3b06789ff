"""What dist-git says about a push: one ``git.receive`` message per commit, oldest first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.dist_git.repository import git

TOPIC = "org.fedoraproject.prod.git.receive"

#: Puts one message on the bus: topic and body.
Publish = Callable[[str, dict[str, Any]], object]

_NOTHING = "0" * 40
_FORMAT = "%an%x00%ae%x00%s%x00%B"


def announce(repository: Path, branch: str, old: str, new: str, agent: str, publish: Publish) -> int:
    """Publish the commits that a push of ``branch`` from ``old`` to ``new`` brought, and return how many.

    ``old`` of forty zeros means a new branch, which sends its whole history, as the production hook does. A
    deleted branch sends nothing.
    """
    commits = new_commits(repository, old, new)
    for rev in commits:
        publish(TOPIC, receive_body(repository, branch, rev, agent))
    return len(commits)


def new_commits(repository: Path, old: str, new: str) -> list[str]:
    """The commits of a push, oldest first."""
    if new == _NOTHING:
        return []
    return git("-C", repository, "rev-list", "--reverse", new if old == _NOTHING else f"{old}..{new}").split()


def receive_body(repository: Path, branch: str, rev: str, agent: str) -> dict[str, Any]:
    """The body of the message about one commit, in the fields of the production hook's."""
    name, email, summary, message = git("-C", repository, "show", "-s", f"--format={_FORMAT}", rev).split("\0", 3)
    return {
        "commit": {
            "username": agent,
            "agent": agent,
            "name": name,
            "email": email,
            "summary": summary,
            "message": message,
            "stats": _stats(repository, rev),
            "namespace": repository.parent.name,
            "repo": repository.name.removesuffix(".git"),
            "path": str(repository),
            "branch": branch,
            "rev": rev,
            "seen": _seen_elsewhere(repository, branch, rev),
        }
    }


def _stats(repository: Path, rev: str) -> dict[str, Any]:
    listing = git("-C", repository, "show", "--no-renames", "--numstat", "--format=", "-z", rev)
    files: dict[str, dict[str, int]] = {}
    for entry in filter(None, listing.split("\0")):
        added, deleted, path = entry.lstrip("\n").split("\t", 2)
        # git prints "-" for the lines of a binary file.
        plus, minus = (int(count) if count.isdigit() else 0 for count in (added, deleted))
        files[path] = {"additions": plus, "deletions": minus, "lines": plus + minus}
    total = {key: sum(stat[key] for stat in files.values()) for key in ("additions", "deletions", "lines")}
    return {"files": files, "total": {**total, "files": len(files)}}


def _seen_elsewhere(repository: Path, branch: str, rev: str) -> bool:
    holders = git("-C", repository, "branch", "--contains", rev, "--format=%(refname:lstrip=2)").split()
    return any(holder != branch for holder in holders)
