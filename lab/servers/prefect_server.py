"""The lab's Prefect: a server on SQLite, its work pool, a worker, and the deployments of prefect.yaml."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from distgate.doctor.health import health_file
from distgate.errors import InfrastructureError
from distgate.process import run
from distgate.steps import Progress
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service, read_json, write_json

log = logging.getLogger(__name__)

POOL = "distgate"
#: Flow runs at the same time on this host: each boots a guest.
RUNS = 2
SERVER, WORKER = "prefect-server", "prefect-worker"
DEPLOY_SECONDS = 300.0


@dataclass(frozen=True)
class PrefectServer:
    """Where a Prefect server of the lab lives and listens; ``worker_port`` is where its worker tells its health."""

    home: Path
    port: int
    worker_port: int

    @property
    def api_url(self) -> str:
        """What clients take as PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """Where people look."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What every process that talks to this server must have in its environment."""
        return {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_UI_URL": self.ui_url,
            "PREFECT_CLI_COLORS": "false",
            "DO_NOT_TRACK": "1",
            # Prefect wraps its log at the width of a terminal it does not have.
            "COLUMNS": "200",
        }

    def server(self) -> Service:
        """The server: API, UI and its background services in one process."""
        settings = {
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # In memory, the default, a restart of the server loses who holds which slot: the holder is cancelled
            # and the slot stays taken for good.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }
        arguments = ("server", "start", "--host", "127.0.0.1", "--port", str(self.port))
        health = Health("http", f"{self.api_url}/health")
        return Service(SERVER, _prefect(*arguments), environment={**self.environment, **settings}, health=health)

    def worker(self, environment: Mapping[str, str], project: Path, after: tuple[str, ...] = ()) -> Service:
        """The worker that starts flow runs as processes in ``project``, with ``environment`` for them."""
        settings = {
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(self.worker_port),
        }
        arguments = ("worker", "start", "--pool", POOL, "--type", "process", "--name", "lab", "--limit", str(RUNS))
        return Service(
            WORKER,
            _prefect(*arguments, "--with-healthcheck"),
            environment={**self.environment, **environment, **settings},
            health=Health("http", f"http://127.0.0.1:{self.worker_port}/health"),
            after=(SERVER, *after),
            grace=20,
            cwd=str(project),
        )


def gated(worker: Service, name: str, limit: int, state: Path, queue: str = "default") -> Service:
    """The same worker as sites have it (docs/doctor.md): called ``name``, with ``limit`` runs of ``queue`` at a time,
    and only while its host is fit, which stands in ``state``. It counts as healthy from then on."""
    arguments = ("worker", "--name", name, "--limit", str(limit), "--queue", queue, "--with-healthcheck")
    return replace(
        worker,
        argv=(sys.executable, "-m", "distgate.cli", *arguments),
        environment={**worker.environment, "DISTGATE_WORKER_STATE": str(state)},
        health=Health("worker", f"{worker.health.target}#{health_file(state, name)}"),
        # Asked to end, it waits for the runs in hand: in a lab they are given up.
        grace=5,
    )


def prepare(home: Path) -> PrefectServer:
    """The server that lives in ``home``, made on the first call and the same on every later one."""
    record = home / "lab-server.json"
    fields = read_json(record)
    if fields is None:
        port, worker_port = free_ports(2)
        fields = {"port": port, "worker_port": worker_port}
        write_json(record, fields)
    return PrefectServer(home, **fields)


def ensure_pool(server: PrefectServer) -> None:
    """Make the process work pool unless it exists; the first worker fills in its template of jobs."""
    try:
        answer = httpx.post(
            f"{server.api_url}/work_pools/", json={"name": POOL, "type": "process"}, timeout=30, trust_env=False
        )
    except httpx.HTTPError as error:
        raise InfrastructureError(f"the Prefect server does not answer: {error!r}") from error
    if not answer.is_success and answer.status_code != httpx.codes.CONFLICT:
        raise InfrastructureError(
            f"Prefect refuses the work pool {POOL}: {answer.status_code}", evidence=answer.text[:2000]
        )


def deploy(
    server: PrefectServer, project: Path, environment: Mapping[str, str] | None = None, progress: Progress = log.info
) -> None:
    """Apply every deployment of ``project``/prefect.yaml with its automations; nothing runs by its schedule here.

    Raises InfrastructureError with Prefect's output when that does not work.
    """
    deployed = run(
        _prefect("--no-prompt", "deploy", "--all"),
        timeout=DEPLOY_SECONDS,
        env={**server.environment, **(environment or {})},
        cwd=project,
        hint="prefect.yaml says what is deployed",
    )
    for line in deployed.output.splitlines():
        if "successfully created" in line:
            progress(line.strip(" │|"))
    pause_schedules(server)


def pause_schedules(server: PrefectServer) -> None:
    """Let nothing run by the clock; what is started by hand or by an event runs all the same."""
    try:
        with httpx.Client(base_url=f"{server.api_url}/", timeout=30, trust_env=False) as client:
            for deployment in client.post("deployments/filter", json={}).raise_for_status().json():
                if deployment["schedules"] and not deployment["paused"]:
                    client.post(f"deployments/{deployment['id']}/pause_deployment").raise_for_status()
    except httpx.HTTPError as error:
        raise InfrastructureError(f"the schedules of the lab cannot be paused: {error!r}") from error


def _prefect(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "prefect", *arguments)
