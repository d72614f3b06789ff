"""The hook of the lab's bare repositories: announces on the broker what a ``git push`` brought."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from distgate.bus import amqp
from distgate.errors import DistgateError
from lab.dist_git.git_receive import Publish, announce
from lab.dist_git.repository import git


def receive(lines: Iterable[str], repository: Path, agent: str, publish: Publish) -> int:
    """Announce every branch that git's hook protocol (``old new ref`` a line) names; return the message count."""
    count = 0
    for line in lines:
        old, new, ref = line.split(None, 2)
        if ref.startswith("refs/heads/"):
            branch = ref.strip().removeprefix("refs/heads/")
            count += announce(repository, branch, old, new, agent, publish)
    return count


def main() -> int:
    """Entry point for git, which starts hooks inside the bare repository. A push that is in is never refused."""
    repository = Path(os.environ.get("GIT_DIR", ".")).resolve()
    agent = os.environ.get("GL_USER") or getpass.getuser()
    try:
        count = receive(sys.stdin, repository, agent, _publisher(repository))
    except DistgateError as error:
        print(f"the push is in, but was not announced: {error}", file=sys.stderr)
        return 1
    print(f"announced {count} commit{'' if count == 1 else 's'}")
    return 0


def _publisher(repository: Path) -> Publish:
    """Publishes to ``distgate.url``: a broker (amqp, amqps), or for a lab without one a file of JSON lines."""
    url = git("-C", repository, "config", "distgate.url")
    if url.startswith("file://"):
        return partial(_append, Path(url.removeprefix("file://")))
    exchange = git("-C", repository, "config", "--default", "amq.topic", "distgate.exchange")
    return partial(amqp.publish, url=url, exchange=exchange)


def _append(path: Path, topic: str, body: dict[str, Any]) -> None:
    with path.open("a") as stream:
        stream.write(json.dumps({"topic": topic, "body": body}, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
