"""The lab's entrance alone: a broker and a Prefect server with the deployments, but no worker.

What the intake accepts becomes a flow run that stays scheduled: fault tests and benchmarks count it there, and break
these two without disturbing the lab.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgate.bus.queues import blocking_channel
from distgate.process import spawn
from distgate.waiting import Deadline
from lab import teardown
from lab.servers import prefect_server, rabbitmq, supervisor
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import Broker
from lab.servers.service import save_service, wanted_services
from lab.world import PROJECT

START_SECONDS = 240.0


@dataclass(frozen=True)
class Entrance:
    """A running broker and Prefect server, supervised in ``state``."""

    state: Path
    broker: Broker
    prefect: PrefectServer

    def environment(self, ledger: Path, queue: str) -> dict[str, str]:
        """What a service of ours needs to work here with a ledger and a queue of its own."""
        return {
            "DISTGATE_LEDGER_URL": f"sqlite:///{ledger}",
            "DISTGATE_AMQP_URL": self.broker.url,
            "DISTGATE_EXCHANGE": rabbitmq.EXCHANGE,
            "DISTGATE_QUEUE": queue,
            "PREFECT_API_URL": self.prefect.api_url,
        }

    def declare_exchange(self, name: str, *, to: str) -> None:
        """Make a topic exchange that passes everything on to the exchange ``to``."""
        with blocking_channel(self.broker.url) as channel:
            channel.exchange_declare(name, exchange_type="topic", auto_delete=False)
            channel.exchange_bind(to, name, "#")


@contextmanager
def entrance(state: Path) -> Iterator[Entrance]:
    """Start an entrance in the directory ``state`` and end it, and all that was started in it, on exit."""
    state = state.resolve()
    opened = Entrance(state, rabbitmq.prepare(state / "rabbitmq"), prefect_server.prepare(state / "prefect"))
    try:
        for service in (*opened.broker.services(), opened.prefect.server()):
            save_service(state, service)
        supervisor.start_supervisor(state)
        names = [service.name for service in wanted_services(state)]
        supervisor.wait_healthy(state, names, Deadline(START_SECONDS))
        prefect_server.ensure_pool(opened.prefect)
        prefect_server.deploy(opened.prefect, PROJECT)
        yield opened
    finally:
        teardown.down(state, lambda _: None)


def start_service(name: str, environment: dict[str, str], log_to: Path) -> subprocess.Popen[bytes]:
    """A service of ours as a child process; the caller ends and reaps it."""
    return spawn(service_argv(name), log_to=log_to, env=environment)


def service_argv(name: str) -> tuple[str, ...]:
    """The command line of the module ``name`` of services/."""
    return (sys.executable, "-m", f"services.{name}")
