"""A site at which a run ends as the package's name says, and a program that takes one run to each end.

``main`` is called by test_ends_of_runs in a process of its own, with a directory of benchmarks.idle.places: it
saves the blocks, and runs the pipeline itself.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.idle.drivers import IdleHub, IdleSuites
from benchmarks.idle.places import IdleDistGit, IdleKoji, IdleMachine, IdleStore
from blocks import DistGit, GuestMachine, ImageStore, KojiInstance
from distgate.builds.base import BuildHub, BuildTask
from distgate.changes.change import Change
from distgate.errors import Cancelled, ConfigurationError, GaveUp, InfrastructureError, PackageError
from distgate.guests.base import Guest
from distgate.runners.session import RunnerFor, RunSuite
from distgate.steps import Progress
from distgate.testing.discovery import Suite
from distgate.testing.verdict import SuiteRun

SITE = "ending"
WORDS = ("success", "unstable", "package", "tests", "infrastructure", "late", "configuration", "cancelled", "bug")
BUILDS: Mapping[str, Exception] = {
    "package": PackageError("it does not build", evidence="a.c:1: error: no such type\nmake: *** Error 1\n"),
    "infrastructure": InfrastructureError("the hub is away"),
    "late": GaveUp("Koji task 6 took too long"),
    "configuration": ConfigurationError("the hub knows no target f41"),
    "cancelled": Cancelled("somebody cancelled Koji task 1"),
    "bug": ZeroDivisionError("division by zero"),
}


@dataclass(frozen=True)
class EndingHub(IdleHub):
    """A hub that ends a build as the name of the source says."""

    def submit(self, source: str, target: str, arch: str) -> int:
        return 1 + next(number for number, word in enumerate(WORDS) if f"/{word}" in source)

    def wait(self, task_id: int, timeout: float, progress: Progress) -> BuildTask:
        word = WORDS[task_id - 1]
        if word in BUILDS:
            raise BUILDS[word]
        return super().wait(task_id, timeout, progress)


class EndingKoji(IdleKoji):
    _block_type_name: ClassVar[str | None] = "Ending Koji"
    _block_type_slug: ClassVar[str | None] = "ending-koji"

    def hub(self) -> BuildHub:
        return EndingHub(Path(self.topurl) / "packages")


class EndingDistGit(IdleDistGit):
    _block_type_name: ClassVar[str | None] = "Ending dist-git"
    _block_type_slug: ClassVar[str | None] = "ending-dist-git"

    def checkout(self, change: Change, into: Path) -> Path:
        (super().checkout(change, into) / "word").write_text(change.repo)
        return into


class EndingSuites(IdleSuites):
    """Ends a suite as the checkout says: all right, with a failing test, or not even begun."""

    def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
        word = (checkout / "word").read_text()

        def run(_guest: Guest, artifacts: Path, _timeout: float) -> SuiteRun:
            artifacts.mkdir(parents=True)
            if word != "tests":
                result = {"success": "pass", "unstable": "fail"}[word]
                (artifacts / "results.yml").write_text(
                    f"results:\n- {{test: one, result: {result}, logs: [one.log]}}\n"
                )
                (artifacts / "one.log").write_text("1 is not 2\nFAIL one\n")
            return SuiteRun(suite.name, 4 if word == "tests" else 0, artifacts, tasks={"ok": 1})

        return run


class EndingMachine(IdleMachine):
    _block_type_name: ClassVar[str | None] = "Ending machine"
    _block_type_slug: ClassVar[str | None] = "ending-machine"

    def suites(self, branch: str, **_: Any) -> RunnerFor:
        return EndingSuites()


def change_of(word: str) -> Change:
    return Change(namespace="rpms", repo=word, rev=word.encode().hex().ljust(40, "0")[:40], branch="f41")


def save(directory: str) -> None:
    for block in (
        KojiInstance(stand_in=f"ending_places:{EndingKoji.__name__}", topurl=directory),
        DistGit(stand_in=f"ending_places:{EndingDistGit.__name__}"),
        ImageStore(stand_in=f"benchmarks.idle.places:{IdleStore.__name__}", root=directory),
        GuestMachine(stand_in=f"ending_places:{EndingMachine.__name__}", state=directory),
    ):
        block.save(SITE, overwrite=True)


def main() -> None:
    from flows.all_packages import all_packages

    save(sys.argv[1])
    for word in (*WORDS, "success"):  # once more: a duplicate
        all_packages(change_of(word), return_state=True)
