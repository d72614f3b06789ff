"""So many runs at a time, and not more: the others wait, and say for what."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from distgate.ledger.ledger import Ledger
from distgate.pipelines import split_topic
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from lab.world import PROJECT

HERE = Path(__file__).parent
LONG = 240.0


@dataclass
class Queue:
    """Runs that want a slot of one limit, each a process of its own."""

    server: PrefectServer
    world: Path
    limit: str = field(default_factory=lambda: f"slots-{uuid4().hex[:8]}")
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, slots: int) -> None:
        own = {
            "DISTGATE_LEDGER_URL": f"sqlite:///{self.world}/ledger.db",
            "DISTGATE_ARTIFACTS_DIR": str(self.world / "artifacts"),
            "DISTGATE_RETRY_DELAYS": "[]",
            "PYTHONPATH": str(PROJECT),
        }
        words = [sys.executable, HERE / "slotted_pipeline.py", self.world, name, self.limit, str(slots)]
        with (self.world / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                words, env=self.server.environment | own, stdout=log, stderr=subprocess.STDOUT, cwd=self.world
            )

    def log(self, name: str) -> str:
        return (self.world / f"{name}.log").read_text()

    def has(self, name: str, what: str) -> None:
        path = self.world / f"{name}.{what}"
        wait_for(f"{path.name}", path.exists, LONG, evidence=lambda: self.log(name))

    def page(self, name: str) -> FlowRun:
        with PrefectApi(self.server.api_url) as prefect:
            found = prefect.flow_run((self.world / f"{name}.run").read_text())
        assert found is not None
        return found

    def waits(self, name: str) -> None:
        self.has(name, "run")
        wait_for(f"{name} to wait", lambda: self.page(name).state_name == "Waiting", LONG)

    def end(self, name: str) -> int:
        (self.world / f"{name}.end").touch()
        return self.running[name].wait(LONG)

    def said(self, name: str) -> list[str]:
        letters = Ledger(f"sqlite:///{self.world}/ledger.db").unsent()
        return [split_topic(one.topic)[1] for one in letters if one.body["repo"] == name]


@pytest.fixture
def queue(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Queue]:
    made = Queue(prefect_server, tmp_path)
    yield made
    for process in made.running.values():
        process.kill()
        process.wait()


@pytest.mark.lab
def test_who_has_to_wait_says_for_what_and_goes_on_when_a_slot_is_free(queue: Queue) -> None:
    queue.start("first", 1)
    queue.has("first", "began")
    queue.start("second", 1)
    queue.waits("second")
    assert f"waits for its turn to be tried: limit {queue.limit}, its slot is taken" in queue.log("second")
    assert queue.said("second") == ["package.queued"]
    assert not (queue.world / "second.began").exists()

    assert queue.end("first") == 0
    queue.has("second", "began")
    assert queue.page("second").state_name == "Running"
    assert queue.end("second") == 0
    assert queue.said("second") == ["package.queued", "package.running", "package.complete", "complete"]
    assert "waits" not in queue.log("first")


@pytest.mark.lab
def test_without_a_limit_nobody_waits_and_none_is_made(queue: Queue) -> None:
    for name in ("first", "second"):
        queue.start(name, 0)
    for name in ("first", "second"):
        queue.has(name, "began")
        assert queue.end(name) == 0
        assert "waits" not in queue.log(name)
