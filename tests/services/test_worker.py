"""The worker beside a real Prefect server: unfit it takes nothing, fit again it takes runs, and it drops none."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from distgate.doctor.health import ASKING_QUEUE, Health, health_file, queue_of, read_health, write_health
from distgate.files import tail_of
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.process import run, spawn
from distgate.waiting import wait_for
from lab.servers import prefect_server as lab_prefect
from lab.servers.prefect_server import PrefectServer
from services.worker import PollGate, WorkerIdentity

SOON = 120.0

PREFECT_YAML = """\
name: held
deployments:
  - name: here
    entrypoint: held.hold
    work_pool: {{name: {pool}, job_variables: {{stream_output: false}}}}
"""
HELD = """\
import pathlib, time
from prefect import flow

@flow
def hold(scratch: str, name: str) -> None:
    room = pathlib.Path(scratch)
    (room / f"{name}.began").touch()
    while not (room / f"{name}.end").exists():
        time.sleep(0.2)
    (room / f"{name}.ended").touch()
"""


@dataclass
class Room:
    """A pool with one deployment, whose runs last until they are let go."""

    api: PrefectApi
    server: PrefectServer
    project: Path
    pool: str

    @property
    def state(self) -> Path:
        return self.project / "state"

    @property
    def artifacts(self) -> Path:
        return self.project / "artifacts"

    def start(self, name: str, *, queue: str = "") -> FlowRun:
        parameters = {"scratch": str(self.project), "name": name}
        return self.api.create_flow_run("hold/here", parameters, idempotency_key=uuid.uuid4().hex, queue=queue)

    def forget_message(self, name: str) -> None:
        (self.project / f"{name}.end").touch()

    def await_begun(self, name: str) -> None:
        wait_for(f"run {name} to begin", lambda: (self.project / f"{name}.began").exists(), SOON, evidence=self.log)

    def await_completed(self, run_: FlowRun) -> None:
        wait_for("its end", lambda: self.state_of(run_) == "COMPLETED", SOON, evidence=self.log)

    def await_health(self, fit: bool) -> None:
        file = health_file(self.state, "tiny host")
        wait_for(f"fit={fit}", lambda: (known := read_health(file)) and known.fit is fit, SOON, evidence=self.log)

    def state_of(self, run_: FlowRun) -> str:
        known = self.api.flow_run(run_.id)
        return known.state_type if known else ""

    def break_host(self) -> None:
        shutil.rmtree(self.artifacts)
        self.artifacts.write_text("no directory: nothing can be written here")

    def mend_host(self) -> None:
        self.artifacts.unlink()
        self.artifacts.mkdir()

    def log(self) -> str:
        return tail_of(self.project / "worker.log")


@pytest.fixture
def room(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Room]:
    pool = f"held-{uuid.uuid4().hex[:6]}"
    (tmp_path / "prefect.yaml").write_text(PREFECT_YAML.format(pool=pool))
    (tmp_path / "held.py").write_text(HELD)
    (tmp_path / "artifacts").mkdir()
    wish = {"name": pool, "type": "process"}
    httpx.post(f"{prefect_server.api_url}/work_pools/", json=wish, trust_env=False).raise_for_status()
    lab_prefect.deploy(prefect_server, tmp_path, {"PYTHONPATH": str(tmp_path)})
    with PrefectApi(prefect_server.api_url) as api:
        yield Room(api, prefect_server, tmp_path, pool)


@pytest.fixture
def worker(room: Room) -> Iterator[int]:
    words = ["worker", "--pool", room.pool, "--name", "tiny host", "--limit", "2"]
    environment = room.server.environment | {
        "PYTHONPATH": str(room.project),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DISTGATE_WORKER_STATE": str(room.state),
        "DISTGATE_WORKER_CHECKS": '["disk"]',
        "DISTGATE_FREE_DISK": "1M",
        "DISTGATE_HEALTH_EVERY": "1",
        "DISTGATE_ARTIFACTS_DIR": str(room.artifacts),
        "DISTGATE_IMAGE_STORE": str(room.project / "images"),
    }
    argv = [sys.executable, "-m", "distgate.cli", *words]
    process = spawn(argv, log_to=room.project / "worker.log", env=environment, cwd=room.project)
    yield process.pid
    if process.poll() is None:
        process.kill()
    process.wait(60)


def ended(pid: int) -> bool:
    found, _ = os.waitpid(pid, os.WNOHANG)
    return found == pid


def test_an_unfit_worker_takes_no_new_run_and_ends_none_and_takes_runs_when_it_is_fit_again(
    room: Room, worker: int
) -> None:
    first = room.start("first")
    room.await_begun("first")

    room.break_host()
    room.await_health(False)
    wait_for("the words", lambda: any(one.startswith("takes no runs: 1 of 1") for one in descriptions(room)), SOON)
    second = room.start("second")
    # What waits for this host is taken, fit or not: so it is known that the worker has polled since.
    own = room.start("own", queue=queue_of("tiny host"))
    room.await_begun("own")
    assert room.state_of(second) in ("SCHEDULED", "LATE")
    assert room.state_of(first) == "RUNNING"
    room.forget_message("first")
    room.await_completed(first)
    asking = room.start("asking", queue=ASKING_QUEUE)
    room.await_begun("asking")
    assert room.state_of(second) in ("SCHEDULED", "LATE")
    room.forget_message("asking")
    room.await_completed(asking)

    room.mend_host()
    room.await_health(True)
    room.await_begun("second")
    room.forget_message("own")
    room.await_completed(own)

    # Asked to end, it waits for what it has in hand.
    os.kill(worker, signal.SIGTERM)
    wait_for("the drain", lambda: "in hand are awaited" in room.log(), SOON, evidence=room.log)
    third = room.start("third")
    room.forget_message("second")
    room.await_completed(second)
    wait_for("the worker's end", lambda: ended(worker), SOON, evidence=room.log)
    assert room.state_of(third) in ("SCHEDULED", "LATE")


def descriptions(room: Room) -> list[str]:
    url = f"{room.server.api_url}/work_pools/{room.pool}/queues/filter"
    return [one["description"] or "" for one in httpx.post(url, json={}, trust_env=False).raise_for_status().json()]


def test_a_worker_without_its_pool_says_so(prefect_server: PrefectServer, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "distgate.cli", "worker", "--pool", "nowhere"]
    env = {**prefect_server.environment, "DISTGATE_WORKER_STATE": str(tmp_path)}
    told = run(argv, timeout=120, env=env, allowed=range(256), split_errors=True)
    assert told.returncode == 2
    assert "Prefect answers 404" in told.errors
    assert "work-pool create" in told.errors


#: Whether the health says fit (None: nobody looked), whether it could not be written, whether the worker ends; and
#: the queues that are served.
GATES: list[tuple[bool | None, bool, bool, set[str]]] = [
    (None, False, False, {"host-kvm01", "health"}),
    (False, False, False, {"host-kvm01", "health"}),
    (True, False, False, {"default", "host-kvm01", "health"}),
    (True, True, False, {"host-kvm01", "health"}),
    (True, False, True, set()),
]


@pytest.mark.parametrize(("fit", "stale", "draining", "queues"), GATES)
def test_a_gate_lets_in_what_the_health_allows(
    tmp_path: Path, fit: bool | None, stale: bool, draining: bool, queues: set[str]
) -> None:
    gate = PollGate(WorkerIdentity("distgate", "kvm01", 2), tmp_path / "health.json")
    if fit is not None:
        write_health(tmp_path / "health.json", Health(fit, "", 0.0))
    gate.stale, gate.draining = stale, draining
    assert gate.queues() == queues
