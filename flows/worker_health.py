"""Whether the hosts of the workers are fit: one that is not takes no runs, and one that is again takes them."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from tasks.operations.worker_health import ask_every_host, look_here


def _title() -> str:
    return f"health of {flow_run.parameters.get('host') or 'every host'}"


@flow(name="worker-health", flow_run_name=_title)
def worker_health(host: str = "") -> State[Any]:
    """Look at the health of a worker's host, in a run that waits in that host's queue; of every host without a name.

    Args:
        host: The worker's name. Its run must be started in the work queue host-NAME.
    """
    if not host:
        return Completed(message=ask_every_host().sentence())
    health = look_here(host)
    return Completed(message=health.sentence) if health.fit else Failed(name="Unfit", message=health.sentence)
