"""Prefect on PostgreSQL and Redis, started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.waiting import Deadline
from lab import teardown
from lab.servers import prefect_cluster, prefect_server, supervisor
from lab.servers.prefect_cluster import PrefectCluster
from lab.servers.service import save_service

START_SECONDS = 180.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def deploy_directory() -> Path:
    """The directory deploy/ of the project."""
    return ROOT / "deploy"


@pytest.fixture(scope="module")
def cluster_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of the cluster; whatever was started in it is ended."""
    state = tmp_path_factory.mktemp("cluster").resolve()
    yield state
    teardown.down(state, print)


@pytest.fixture(scope="module")
def cluster(cluster_state: Path) -> PrefectCluster:
    """A running cluster with an empty work pool and no worker."""
    made = prefect_cluster.prepare(cluster_state)
    for one in made.services():
        save_service(cluster_state, one)
    supervisor.start_supervisor(cluster_state)
    supervisor.wait_healthy(cluster_state, [one.name for one in made.services()], Deadline(START_SECONDS))
    prefect_server.ensure_pool(made.server)
    return made
