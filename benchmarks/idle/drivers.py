"""Drivers that do nothing, by the protocols of distgate: each says the least of what a real one says."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distgate.builds.base import BuildTask
from distgate.guests.base import CommandResult, Guest
from distgate.images.base import BaseImage, ComposedImage
from distgate.images.smoke import INSTALLED_COMMAND
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress
from distgate.testing.discovery import Suite
from distgate.testing.verdict import SuiteRun

if TYPE_CHECKING:
    from distgate.runners.session import RunSuite

_DONE = BuildTask(1, "build", "x86_64", "CLOSED")


@dataclass(frozen=True)
class IdleHub:
    """A hub whose every build is the packages in the directory ``packages``, at once."""

    packages: Path

    def submit(self, source: str, target: str, arch: str) -> int:
        return _DONE.task_id

    def submit_srpm(self, path: Path, target: str, arch: str) -> int:
        return _DONE.task_id

    def dist_tag(self, target: str) -> str:
        return ".fc44"

    def wait(self, task_id: int, timeout: float, progress: Progress) -> BuildTask:
        progress(*_DONE.lines())
        return _DONE

    def cancel(self, task_id: int) -> None:
        return None

    def download(self, task_id: int, into: Path, arch: str) -> list[Path]:
        links = []
        for package in sorted(self.packages.glob("*.rpm")):
            links.append(into / package.name)
            os.link(package, links[-1])
        return links


class IdleComposer:
    """Composes an empty file."""

    def compose(
        self,
        base: BaseImage,
        repository: Path,
        packages: Sequence[Nevra],
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> ComposedImage:
        into.touch()
        every = tuple(packages)
        return ComposedImage(into, base.identity, base.path, every, every, 0)


@dataclass(frozen=True)
class IdleGuest:
    """A guest that is none; ``installed`` is what rpm says in it."""

    installed: Path
    key: Path
    console: Path
    name: str = "idle"
    port: int = 0

    def run(self, command: str, timeout: float) -> CommandResult:
        return CommandResult(0, self.installed.read_text() if command == INSTALLED_COMMAND else "6.1", "")

    def console_tail(self, size: int = 2000) -> str:
        return ""

    def reboot(self, timeout: float) -> Guest:
        return self


@dataclass(frozen=True)
class IdleGuests:
    """Boots nothing, at once."""

    installed: Path

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        workdir.mkdir(parents=True, exist_ok=True)
        yield IdleGuest(self.installed, key, workdir / "console.log")


class IdleSuites:
    """Runs no suite, and says that its one test passed."""

    def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
        return lambda _guest, artifacts, _timeout: _passed(suite, artifacts)

    def enabled(self, checkout: Path) -> Collection[str]:
        return ()


def _passed(suite: Suite, artifacts: Path) -> SuiteRun:
    artifacts.mkdir(parents=True)
    (artifacts / "results.yml").write_text("results:\n- {test: idle, result: pass}\n")
    return SuiteRun(suite.name, 0, artifacts, tasks={"ok": 1})
