"""The health of workers' hosts: asked for on every host, and looked at on one."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from distgate.drivers.prefect_api import PrefectApi
from distgate.drivers.worker_health import examine_here, note_health
from distgate.health import Health, host_of, queue_of
from distgate.settings import settings

#: The deployment whose runs look at one host each.
DEPLOYMENT = "worker-health/hosts"


@task(name="Ask every host", retries=2, retry_delay_seconds=5)
def ask_every_host() -> list[str]:
    """Start a run for each host that ever had a worker in the pool, in that host's own queue; the hosts' names."""
    with PrefectApi(settings().prefect_api_url) as prefect:
        queues = prefect.queues(prefect.pool_of(DEPLOYMENT))
        hosts = sorted(host for queue in queues if (host := host_of(queue)))
        for host in hosts:
            key = f"health of {host} for {flow_run.id}"
            prefect.create_flow_run(
                DEPLOYMENT, {"host": host}, idempotency_key=key, queue=queue_of(host), name=f"health of {host}"
            )
    get_run_logger().info("%d hosts are asked: %s", len(hosts), ", ".join(hosts) or "no worker was ever there")
    return hosts


@task(name="Look at this host")
def look_here(host: str) -> Health:
    """Examine the host that this runs on; from now on its worker ``host`` takes runs, or takes none."""
    report = examine_here(settings())
    health = note_health(settings(), host, report)
    rows = [{"check": name, "state": state, "what was seen": words} for name, state, words in report.rows()]
    create_table_artifact(rows, key="worker-health", description=f"{host}: {health.sentence}")
    get_run_logger().info("%s: %s", host, health.sentence)
    return health
