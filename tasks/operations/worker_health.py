"""The health of workers' hosts: requested for every host, examined on one."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from distgate.doctor.health import Health, host_of, queue_of
from distgate.doctor.worker_health import examine_here, note_health
from distgate.prefect_api import PrefectApi
from distgate.settings import settings

#: The deployment whose runs look at one host each.
DEPLOYMENT = "worker-health/hosts"
#: The states of a run that no worker has taken yet.
_WAITING = ("SCHEDULED", "PENDING")


@dataclass(frozen=True)
class HealthRequests:
    """The hosts that were asked for their health, and those that have not answered an earlier question yet."""

    hosts: tuple[str, ...]
    silent: tuple[str, ...]

    def sentence(self) -> str:
        """The hosts that were asked, in one sentence."""
        sentence = f"asked: {', '.join(self.hosts) or 'no host'}"
        return (
            f"{sentence}; not again, for the last question still waits: {', '.join(self.silent)}"
            if self.silent
            else sentence
        )


@task(name="Ask every host", retries=2, retry_delay_seconds=5)
def ask_every_host() -> HealthRequests:
    """Start a run for each host that ever had a worker in the pool, in that host's own queue; but not where the last
    one still waits for a worker that is busy or gone."""
    with PrefectApi(settings().prefect_api_url) as prefect:
        queues = prefect.queues(prefect.pool_of(DEPLOYMENT))
        hosts = {host for queue in queues if (host := host_of(queue))}
        name = f"for {flow_run.id}"
        waiting = {
            str(run.parameters.get("host"))
            for run in prefect.flow_runs(deployment=DEPLOYMENT, state_types=_WAITING)
            if not (run.idempotency_key or "").endswith(name)  # of this very run, before it was tried again
        }
        requests = HealthRequests(tuple(sorted(hosts - waiting)), tuple(sorted(hosts & waiting)))
        for host in requests.hosts:
            key = f"health of {host} {name}"
            prefect.create_flow_run(
                DEPLOYMENT, {"host": host}, idempotency_key=key, queue=queue_of(host), name=f"health of {host}"
            )
    get_run_logger().info("%s", requests.sentence())
    return requests


@task(name="Look at this host")
def look_here(host: str) -> Health:
    """Examine the host that this runs on; from now on its worker ``host`` takes runs, or takes none."""
    report = examine_here(settings())
    health = note_health(settings(), host, report)
    rows = [{"check": name, "state": state, "what was seen": detail} for name, state, detail in report.rows()]
    create_table_artifact(rows, key="worker-health", description=f"{host}: {health.sentence}")
    get_run_logger().info("%s: %s", host, health.sentence)
    return health
