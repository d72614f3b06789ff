"""One run at a time composes a branch's tree and tests it: whatever becomes of it, the next one has its turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.ledger.ledger import Ledger
from distgate.pipelines import split_topic
from distgate.process import run
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from lab.world import PROJECT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root")
HERE = Path(__file__).parent
LONG = 240.0


@dataclass
class Branch:
    """A branch on which runs work, each a process of its own."""

    room: Path
    environment: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """A run of the package ``name``."""
        words = [sys.executable, str(HERE / "branch_turns.py"), name, str(self.room), str(len(self.running) + 1)]
        with (self.room / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                words, env=self.environment, stdout=log, stderr=subprocess.STDOUT, cwd=PROJECT
            )

    def log(self, name: str) -> str:
        return (self.room / f"{name}.log").read_text()

    def waits(self, name: str) -> None:
        wait_for(
            f"{name} to wait", lambda: "waits for its turn" in self.log(name), LONG, evidence=lambda: self.log(name)
        )

    def candidate(self, name: str) -> tuple[str, str]:
        """The commit of the run's tree and its parent, once it is tested."""
        tree = self.room / f"{name}.tree"
        wait_for(f"{name}'s tree", lambda: tree.exists() and tree.read_text(), LONG, evidence=lambda: self.log(name))
        rev, _, parent = tree.read_text().partition(" ")
        return rev, parent

    def end(self, name: str, word: str) -> int:
        """Let the run's tests end with ``word``; its exit status."""
        (self.room / f"{name}.{word}").touch()
        return self.running[name].wait(LONG)

    def signal(self, name: str, number: signal.Signals) -> None:
        self.running[name].send_signal(number)
        self.running[name].wait(LONG)

    def said(self) -> dict[str, list[str]]:
        """What each run said, by its package."""
        letters, names = Ledger(f"sqlite:///{self.room}/ledger.db").unsent(), list(self.running)
        said: dict[str, list[str]] = {name: [] for name in names}
        for letter in letters:
            assert letter.body.get("compose_url") in (None, "http://trees.test/f41/ostree")
            said[names[int(letter.body["rev"], 16) - 1]].append(split_topic(letter.topic)[1])
        return said

    def head(self) -> str:
        return (self.room / "trees/f41/ostree/refs/heads/fedora/f41/x86_64/atomic-host").read_text().strip()


@pytest.fixture
def branch(tmp_path: Path, prefect_server: PrefectServer) -> Iterator[Branch]:
    own = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(tmp_path / "artifacts"),
        "DISTGATE_RETRY_DELAYS": "[]",
        "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests/fixtures'}",
        "PATH": os.environ["PATH"],
        "PYTHONUNBUFFERED": "1",
    }
    branch = Branch(tmp_path, prefect_server.environment | own)
    run([sys.executable, HERE / "branch_turns.py", "build", tmp_path], timeout=LONG, env=branch.environment)
    yield branch
    for process in branch.running.values():
        process.kill()
        process.wait()


@pytest.mark.lab
def test_runs_take_turns_and_build_on_what_passed(branch: Branch) -> None:
    branch.start("tool-2.0")
    first, parent = branch.candidate("tool-2.0")
    assert (parent, branch.head()) == ("", first)
    for name in ("tool-3.0", "extra-1.0"):
        branch.start(name)
        branch.waits(name)
    branch.signal("extra-1.0", signal.SIGTERM)  # as a worker ends a run that somebody cancelled
    assert branch.end("tool-2.0", "passed") == 0

    second, parent = branch.candidate("tool-3.0")
    assert (parent, branch.head()) == (first, second)
    assert branch.end("tool-3.0", "failed") == 0
    assert branch.head() == first

    branch.start("tool-4.0")
    third, parent = branch.candidate("tool-4.0")
    assert (parent, branch.head()) == (first, third)
    branch.start("tool-0.5")
    branch.waits("tool-0.5")
    branch.signal("tool-4.0", signal.SIGKILL)  # its slot is free again when its lease runs out
    fourth, parent = branch.candidate("tool-0.5")
    assert (parent, branch.head()) == (first, fourth)
    branch.signal("tool-0.5", signal.SIGTERM)
    assert branch.head() == first
    assert branch.said() == {
        "tool-2.0": ["compose.running", "compose.complete", "complete"],
        "extra-1.0": ["complete"],  # it never had its turn
        "tool-3.0": ["compose.running", "compose.complete", "complete"],
        "tool-4.0": ["compose.running", "compose.complete"],
        "tool-0.5": ["compose.running", "compose.complete", "complete"],
    }
