"""The files of a Koji build that is no scratch build: they stay below packages/ when its tasks' output is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import koji

from distgate.drivers.koji_output import is_safe
from distgate.errors import InfrastructureError

_PATHS = koji.PathInfo(topdir="")


@dataclass(frozen=True)
class ReleasedFile:
    """One file of a build: its path below the hub's top URL, and its size in bytes (0: the hub does not say)."""

    path: str
    size: int
    save_as: str

    @property
    def title(self) -> str:
        """What people read of it."""
        return self.path

    def url(self, topurl: str) -> str:
        """Where the file lies below the hub's top URL."""
        return f"{topurl.rstrip('/')}/{self.path}"

    def chunk(self, session: Any, offset: int, size: int) -> bytes:
        """Hubs hand out tasks' files alone through their XML-RPC. Raises InfrastructureError."""
        raise InfrastructureError(
            f"{self.path} cannot be fetched from the top URL", hint="is the block's topurl right?"
        )


def released(session: Any, task_id: int, arch: str) -> list[ReleasedFile]:
    """The RPMs for ``arch`` (with noarch and src) and the logs of the build that a task made; none when it made none,
    as a scratch build does."""
    builds = session.listBuilds(taskID=task_id, state=koji.BUILD_STATES["COMPLETE"])
    if not builds:
        return []
    build, number = builds[0], builds[0]["build_id"]
    below = _PATHS.build(build).lstrip("/")
    rpms = [
        ReleasedFile(f"{below}/{(path := _PATHS.rpm(one))}", int(one["size"]), path.rpartition("/")[2])
        for one in session.listBuildRPMs(number)
        if one["arch"] in (arch, "noarch", "src")
    ]
    logs = [
        ReleasedFile(one["path"], 0, f"{one['name'].removesuffix('.log')}.{one['dir']}.log")
        for one in session.getBuildLogs(number)
        if one["dir"] in (arch, "noarch") and one["name"].endswith(".log")
    ]
    return [one for one in (*rpms, *logs) if is_safe(one.save_as)]
