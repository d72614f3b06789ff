"""What dist-git and Koji are asked when somebody starts a run by hand."""

from __future__ import annotations

from collections.abc import Callable

from distgate.builds.heads import heads
from distgate.builds.koji import KojiClient, KojiProfile
from distgate.changes.retrigger import Source
from distgate.errors import ConfigurationError

_ENDED_BADLY = {3: "was cancelled", 5: "failed"}


class SiteLookup:
    """A Lookup (distgate.changes.retrigger) on a site: ``address`` gives a repository's URL, ``koji`` the hub."""

    def __init__(self, address: Callable[[str, str], str], koji: KojiProfile) -> None:
        self._address = address
        self._koji = koji

    def head(self, namespace: str, repo: str, branch: str) -> str:
        """The latest commit of a branch. Raises ConfigurationError when it cannot be had."""
        found = heads({repo: self._address(namespace, repo)}, [branch])[repo]
        if found.problem:
            raise ConfigurationError(
                f"{namespace}/{repo} on {branch}: {found.problem}",
                hint="are its name and branch as dist-git has them?",
            )
        return found.rev

    def source(self, koji_task: int) -> Source:
        """What a build task was asked to build. Raises ConfigurationError for a task that is none or has no packages,
        InfrastructureError when the hub is away."""
        return _Sources(self._koji).source(koji_task)


class _Sources(KojiClient):
    def source(self, task_id: int) -> Source:
        with self._session(login=False) as session:
            known = session.getTaskInfo(task_id, request=True)
        where = f"Koji task {task_id} on {self.profile.server}"
        if not known or known["method"] != "build":
            said = f"is a {known['method']}" if known else "does not exist"
            raise ConfigurationError(f"{where} {said}", hint="koji_task is the ID of the build, not of a part of it")
        if known["state"] in _ENDED_BADLY:
            said = _ENDED_BADLY[known["state"]]
            raise ConfigurationError(f"{where} {said}: it has no packages", hint="name the commit to build it anew")
        source, target, *_ = known["request"]
        return Source(str(source), str(target))
