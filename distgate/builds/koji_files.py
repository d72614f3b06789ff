"""The files of Koji builds: the output of a scratch build's tasks, and what a released build has below packages/.

Hubs clear the output of tasks away after some days. Each file arrives whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import httpx
import koji

from distgate.errors import InfrastructureError

_CHUNK = 1 << 20
_HTTP_SECONDS = 120.0
_SAFE = re.compile(r"\w[\w.+~^%-]*\Z")
_PATHS = koji.PathInfo(topdir="")


class HubFile(Protocol):
    """A file that a hub has: ``size`` in bytes (0: unknown), ``save_as`` its name here, ``title`` for people."""

    @property
    def size(self) -> int: ...

    @property
    def save_as(self) -> str: ...

    @property
    def title(self) -> str: ...

    def url(self, topurl: str) -> str:
        """Where the file lies below the hub's top URL."""

    def chunk(self, session: Any, offset: int, size: int) -> bytes:
        """A part of the file through the hub's XML-RPC. Raises InfrastructureError where there is no such way."""


@dataclass(frozen=True)
class TaskFile:
    """One file of one task; ``size`` in bytes as the hub says, ``save_as`` its name here."""

    task_id: int
    name: str
    volume: str
    size: int
    save_as: str = ""

    @property
    def title(self) -> str:
        """The file's name for people."""
        return f"{self.name} of Koji task {self.task_id}"

    def url(self, topurl: str) -> str:
        """Where the file lies below the hub's top URL."""
        volume = None if self.volume == "DEFAULT" else self.volume
        return f"{koji.PathInfo(topdir=topurl.rstrip('/')).task(self.task_id, volume)}/{self.name}"

    def chunk(self, session: Any, offset: int, size: int) -> bytes:
        """A part of the file through the hub's XML-RPC."""
        return bytes(
            session.downloadTaskOutput(self.task_id, self.name, offset=offset, size=size, volume=self.volume)
        )


@dataclass(frozen=True)
class ReleasedFile:
    """One file of a build: its path below the hub's top URL, and its size in bytes (0: the hub does not say)."""

    path: str
    size: int
    save_as: str

    @property
    def title(self) -> str:
        """The file's name for people."""
        return self.path

    def url(self, topurl: str) -> str:
        """Where the file lies below the hub's top URL."""
        return f"{topurl.rstrip('/')}/{self.path}"

    def chunk(self, session: Any, offset: int, size: int) -> bytes:
        """Raises InfrastructureError: hubs send tasks' files alone through their XML-RPC."""
        raise InfrastructureError(
            f"{self.path} cannot be fetched from the top URL", hint="is the block's topurl right?"
        )


def wanted_outputs(tasks: Mapping[int, Any], outputs: Mapping[int, Any], arch: str) -> list[TaskFile]:
    """Of all output, the RPMs for ``arch`` (with noarch and src) and the logs, each name once.

    ``tasks`` and ``outputs`` are what getTaskInfo and listTaskOutput (stat, all volumes) answer, by task ID.
    """
    chosen: dict[str, TaskFile] = {}
    # Tasks that build for an architecture come first: their SRPM is the one with the buildroot's name on it.
    for task_id in sorted(outputs, key=lambda number: (tasks[number]["method"] != "buildArch", number)):
        task = tasks[task_id]
        for name, volumes in sorted(outputs[task_id].items()):
            save_as = _local_name(name, task.get("label") or task["arch"], arch)
            if _is_safe(name) and _is_safe(save_as):  # a label of the hub is part of the latter
                volume, stat = next(iter(volumes.items()))
                chosen.setdefault(save_as, TaskFile(task_id, name, volume, int(stat["st_size"]), save_as))
    return list(chosen.values())


def released(session: Any, task_id: int, arch: str) -> list[ReleasedFile]:
    """The RPMs for ``arch`` (with noarch and src) and the logs of the build that a task made; none for a scratch
    build."""
    builds = session.listBuilds(taskID=task_id, state=koji.BUILD_STATES["COMPLETE"])
    if not builds:
        return []
    build, number = builds[0], builds[0]["build_id"]
    below = _PATHS.build(build).lstrip("/")
    rpms = [
        ReleasedFile(f"{below}/{(path := _PATHS.rpm(rpm))}", int(rpm["size"]), path.rpartition("/")[2])
        for rpm in session.listBuildRPMs(number)
        if rpm["arch"] in (arch, "noarch", "src")
    ]
    logs = [
        ReleasedFile(log["path"], 0, f"{log['name'].removesuffix('.log')}.{log['dir']}.log")
        for log in session.getBuildLogs(number)
        if log["dir"] in (arch, "noarch") and log["name"].endswith(".log")
    ]
    return [file for file in (*rpms, *logs) if _is_safe(file.save_as)]


def _is_safe(name: str) -> bool:
    """Whether a hub's name of a file can be its name here."""
    return bool(_SAFE.match(name))


def fetch(session: Any, topurl: str, serverca: str, file: HubFile, into: Path) -> Path:
    """Download ``file`` by HTTP, or in pieces through the hub when that fails. Raises InfrastructureError."""
    target = into / file.save_as
    partial = target.with_name(f".{file.save_as}.part")
    problem = _over_http(file, topurl, serverca, partial)
    if problem or partial.stat().st_size < file.size:
        with partial.open("wb") as stream:
            _over_rpc(session, file, stream)
    size = partial.stat().st_size
    if size < file.size:  # a log may have grown since the listing
        partial.unlink()
        raise InfrastructureError(f"{file.title}: {size} of {file.size} bytes arrived", evidence=problem)
    return partial.rename(target)


def _local_name(name: str, label: str, arch: str) -> str:
    """A file's name here; empty when it is not downloaded."""
    if name.endswith(".log"):
        return f"{name.removesuffix('.log')}.{label}.log"
    if name.endswith(tuple(f".{kind}.rpm" for kind in (arch, "noarch", "src"))):
        return name
    return ""


def _over_http(file: HubFile, topurl: str, serverca: str, into: Path) -> str:
    """Download by HTTP; the problem, or an empty text when the file is here."""
    try:
        with (
            httpx.Client(verify=serverca or True, timeout=_HTTP_SECONDS, follow_redirects=True) as client,
            client.stream("GET", file.url(topurl)) as answer,
            into.open("wb") as stream,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes(_CHUNK):
                stream.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error)
    return ""


def _over_rpc(session: Any, file: HubFile, stream: IO[bytes]) -> None:
    offset = 0
    while chunk := file.chunk(session, offset, _CHUNK):
        stream.write(chunk)
        offset += len(chunk)
