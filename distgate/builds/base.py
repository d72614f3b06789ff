"""A Koji hub as a scratch build needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from distgate.errors import InfrastructureError
from distgate.steps import Progress

#: How one logs in to a Koji hub.
KojiAuth = Literal["none", "password", "gssapi", "ssl"]


@dataclass(frozen=True)
class BuildTask:
    """One task of a Koji build: ``state`` is FREE, OPEN, CLOSED, CANCELED, ASSIGNED or FAILED."""

    task_id: int
    method: str
    arch: str
    state: str
    children: tuple[BuildTask, ...] = ()

    def lines(self, indent: int = 0) -> list[str]:
        """The tree as a terminal shows it, one task a line."""
        first = f"{'  ' * indent}{self.task_id} {self.method} ({self.arch}) {self.state}"
        return [first, *(line for child in self.children for line in child.lines(indent + 1))]


class TaskLost(InfrastructureError):
    """A build task ended without packages by the builder's fault: a new task may succeed."""


class BuildHub(Protocol):
    """A Koji hub as a scratch build needs it."""

    def submit(self, source: str, target: str, arch: str) -> int:
        """Start a scratch build of ``git+URL#REV`` and return its task ID. An unknown target is refused here."""

    def submit_srpm(self, path: Path, target: str, arch: str) -> int:
        """Upload the source package ``path``, start a scratch build of it and return its task ID."""

    def dist_tag(self, target: str) -> str:
        """What %dist is in packages for ``target``: ``.fc44``."""

    def wait(self, task_id: int, timeout: float, progress: Progress) -> BuildTask:
        """Return the task tree when the build is CLOSED.

        Raises PackageError with the builder's text when it FAILED, TaskLost when it failed by the builder's fault,
        Cancelled when it or a part of it was CANCELED, TimedOut (after cancelling the task) when ``timeout`` seconds
        passed. After any other InfrastructureError the task may still run.
        """

    def cancel(self, task_id: int) -> None:
        """Cancel a task and its descendants; one that has ended already stays as it is."""

    def download(self, task_id: int, into: Path, arch: str) -> list[Path]:
        """Fetch RPMs (``arch``, noarch, src) and logs of the whole task tree; also works for a FAILED build,
        whose logs are then all there is."""
