"""A staging site beside a lab that is up, on the same Prefect server, with what docs/schedules.md calls its own.

Its bus is another exchange of the lab's broker; dist-git, Koji and the base images are the lab's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from distgate.bus.queues import blocking_channel
from distgate.waiting import Deadline
from lab.servers import prefect_server, supervisor
from lab.servers import service as services
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service
from lab.world import PROJECT, START_SECONDS, WORKER_AFTER, World, register, service_of_ours

NAME = "staging"
#: What its worker is called.
HOST = "stage01"
INTAKE, WORKER = f"{NAME}-intake", f"{NAME}-worker"
#: The first part of what it says on its bus.
TOPIC = "org.centos.stage"


@contextmanager
def staging(lab: World) -> Iterator[World]:
    """The site, as long as the block lasts: all of it is healthy, and its worker is fit."""
    world = _place(lab)
    description = world.state / f"world.{NAME}.json"
    with blocking_channel(world.amqp_url) as channel:
        channel.exchange_declare(world.exchange, exchange_type="topic", durable=True)
    world.save(description)
    register(description, world)
    made = [*_services(world), _worker(world)]
    try:
        for one in made:
            services.save(world.state, one)
        supervisor.wait_healthy(world.state, [one.name for one in made], Deadline(START_SECONDS))
        yield world
    finally:
        for one in reversed(made):
            supervisor.retire(world.state, one.name)


def environment(world: World) -> dict[str, str]:
    """What a service of the site must know; its runs get the rest from their deployment."""
    return {
        **world.environment,
        "DISTGATE_ENVIRONMENT": NAME,
        "DISTGATE_DEPLOYMENT": "all-packages/staging",
        "DISTGATE_PIPELINES": '["allpackages"]',
        "DISTGATE_MAIN_TOPIC": TOPIC,
    }


def _place(lab: World) -> World:
    own = lab.state / NAME
    return replace(
        lab,
        site=NAME,
        exchange=f"{NAME}.topic",
        queue=f"{NAME}.triggers",
        ledger_url=f"sqlite:///{own / 'ledger.db'}",
        guests_dir=own / "guests",
        artifacts_dir=lab.artifacts_dir / NAME,
        artifacts_url=f"{lab.artifacts_url}/{NAME}",
    )


def _services(world: World) -> list[Service]:
    (world.state / NAME).mkdir(exist_ok=True)
    world.artifacts_dir.mkdir(exist_ok=True)
    consumes = Health("consumer", f"{world.amqp_url}#{world.queue}")
    own = environment(world)
    return [
        replace(service_of_ours("intake", own, consumes), name=INTAKE),
        replace(service_of_ours("relay", own), name=f"{NAME}-relay"),
        replace(service_of_ours("reconciler", own), name=f"{NAME}-reconciler"),
    ]


def _worker(world: World) -> Service:
    server = prefect_server.prepare(world.state / "prefect")
    (port,) = free_ports(1)
    made = replace(server, worker_port=port).worker(environment(world), PROJECT, (*WORKER_AFTER, INTAKE))
    fit = prefect_server.gated(made, HOST, 1, world.state / NAME / "workers", queue=NAME)
    return replace(fit, name=WORKER)
