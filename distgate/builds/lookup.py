"""What a run that is started by hand looks up: a branch's latest commit in dist-git, a build's source in Koji."""

from __future__ import annotations

from collections.abc import Callable

from distgate.builds.heads import heads
from distgate.builds.koji import KojiClient, KojiProfile
from distgate.changes.retrigger import Source
from distgate.errors import ConfigurationError


class SiteLookup:
    """A Lookup (distgate.changes.retrigger) on a site: ``address`` gives a repository's URL, ``koji`` the hub."""

    def __init__(self, address: Callable[[str, str], str], koji: KojiProfile) -> None:
        self._address = address
        self._koji = koji

    def head(self, namespace: str, repo: str, branch: str) -> str:
        """The latest commit of a branch. Raises ConfigurationError when it cannot be had."""
        latest = heads({repo: self._address(namespace, repo)}, [branch])[repo]
        if latest.problem:
            raise ConfigurationError(
                f"{namespace}/{repo} on {branch}: {latest.problem}",
                hint="are its name and branch as dist-git has them?",
            )
        return latest.rev

    def source(self, koji_task: int) -> Source:
        """The commit and the target of a build task; see ``KojiClient.source``."""
        return KojiClient(self._koji).source(koji_task)
