"""Prefect past one machine: API and background services apart, on PostgreSQL and Redis, several workers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lab.servers import postgresql, redis
from lab.servers.ports import free_ports
from lab.servers.postgresql import Postgresql
from lab.servers.prefect_server import POOL, SERVER, PrefectServer
from lab.servers.prefect_server import prepare as prepare_server
from lab.servers.redis import Redis
from lab.servers.service import Health, Service

BACKGROUND = "prefect-services"


@dataclass(frozen=True)
class PrefectCluster:
    """A Prefect server whose state is outside of it: any of its processes may be killed and started again."""

    server: PrefectServer
    database: Postgresql
    messages: Redis

    def services(self) -> list[Service]:
        """PostgreSQL, Redis, the API with the UI, and the background services."""
        api = self.server.server()
        stores = (postgresql.NAME, redis.NAME)
        background = Service(
            BACKGROUND,
            (sys.executable, "-m", "prefect", "server", "services", "start"),
            # The API migrates the database when it starts, and one is enough.
            environment={**api.environment, **self._stores(), "PREFECT_API_DATABASE_MIGRATE_ON_START": "false"},
            after=(SERVER,),
            grace=20,
        )
        api = replace(
            api, argv=(*api.argv, "--no-services"), environment={**api.environment, **self._stores()}, after=stores
        )
        return [self.database.service(), self.messages.service(), api, background]

    def worker(self, name: str, environment: Mapping[str, str], project: Path, limit: int = 1) -> Service:
        """A worker called ``name`` as on a host of its own, which runs ``limit`` flow runs at a time."""
        worker = self.server.worker(environment, project)
        (port,) = free_ports(1)
        arguments = ["worker", "start", "--pool", POOL, "--type", "process", "--name", name, "--limit", str(limit)]
        return replace(
            worker,
            name=f"prefect-worker-{name}",
            argv=(sys.executable, "-m", "prefect", *arguments, "--with-healthcheck"),
            environment={**worker.environment, "PREFECT_WORKER_WEBSERVER_PORT": str(port)},
            health=Health("http", f"http://127.0.0.1:{port}/health"),
        )

    def _stores(self) -> dict[str, str]:
        """The settings of deploy/prefect-server.env, for these two."""
        return {
            "PREFECT_API_DATABASE_CONNECTION_URL": self.database.url(postgresql.PREFECT, "asyncpg"),
            "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_URL": self.messages.url(0),
            "PREFECT_SERVER_DOCKET_URL": self.messages.url(1),
        }


def prepare(state: Path) -> PrefectCluster:
    """The cluster whose parts live below ``state``, made on the first call and the same on every later one.

    Raises ConfigurationError when PostgreSQL or Redis is not installed.
    """
    return PrefectCluster(
        server=prepare_server(state / "prefect"),
        database=postgresql.prepare(state / "postgresql"),
        messages=redis.prepare(state / "redis"),
    )
