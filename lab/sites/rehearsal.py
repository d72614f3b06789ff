"""A site in small, to rehearse on: Prefect and the ledger on PostgreSQL, Redis, and two hosts of workers.

The hosts are this machine twice: each has a site of its own, and so a directory of its own for its guests, for
Prefect's files, for its worker's health and for what is temporary. As docs/deploy.md says, they share artifacts,
results, and the store of base images.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from distgate.steps import Progress
from lab.servers import postgresql, prefect_cluster
from lab.servers.prefect_server import gated
from lab.servers.process_table import ProcessId, members
from lab.servers.service import Service, save_service
from lab.world import PROJECT, WORKER_AFTER, Start, World, register

HOSTS = ("one", "two")
#: Runs at the same time on each host.
RUNS = 2


class SiteStart(Start):
    """One start of the small site."""

    #: Seconds for everything to be healthy: a dozen processes, most of them Python, start at once.
    patience = 480.0

    def __init__(self, state: Path, cache: Path, progress: Progress) -> None:
        super().__init__(state, cache, progress)
        self.cluster = prefect_cluster.prepare(state)
        self.world = replace(self.world, ledger_url=self.cluster.database.url(postgresql.LEDGER))

    def prefect_services(self) -> list[Service]:
        """PostgreSQL, Redis, Prefect's API, and its background services."""
        return self.cluster.services()

    def add_workers(self) -> None:
        """The workers of both hosts; their places first, for a worker whose doctor misses one takes no runs."""
        for name in HOSTS:
            host, description = host_of(self.world, name), self.state / f"world.{name}.json"
            host.save(description)
            register(description, host)
            save_service(self.state, self._worker(name, host))

    def _worker(self, name: str, host: World) -> Service:
        directory = self.state / name
        (directory / "tmp").mkdir(parents=True, exist_ok=True)
        environment = {
            **host.environment,
            "PREFECT_HOME": str(directory / "prefect"),
            "PREFECT_LOCAL_STORAGE_PATH": str(self.state / "results"),
            "TMPDIR": str(directory / "tmp"),
        }
        worker = gated(self.cluster.worker(name, environment, PROJECT), name, RUNS, directory / "workers")
        return replace(worker, name=worker_of(name), after=WORKER_AFTER)


def start(state: Path, cache: Path, progress: Progress) -> World:
    """Start the small site in ``state`` and return when everything in it is healthy; lab.teardown.down ends it.

    Raises what lab.world.up does, and ConfigurationError when PostgreSQL or Redis is not installed.
    """
    return SiteStart(state.resolve(), cache.expanduser().resolve(), progress).run()


def host_of(world: World, name: str) -> World:
    """The world as the host ``name`` sees it."""
    return replace(world, site=name, guests_dir=world.state / name / "guests")


def worker_of(host: str) -> str:
    """The service that is the worker of a host."""
    return f"worker-{host}"


def runs_on(world: World, host: str) -> dict[str, ProcessId]:
    """The flow runs in hand on a host, by their ID: the processes that run them."""
    by_run: dict[str, ProcessId] = {}
    for process in members(world.state):
        environment = _environment(process.pid)
        if environment.get("DISTGATE_SITE") == host and environment.get("PREFECT__FLOW_RUN_ID"):
            by_run.setdefault(environment["PREFECT__FLOW_RUN_ID"], process)
    return by_run


def _environment(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:  # it is gone
        return {}
    return dict(line.partition("=")[::2] for line in text.split("\0"))
