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
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service, save_service
from lab.world import PROJECT, START_SECONDS, WORKER_AFTER, World, register, service_of_ours

NAME = "staging"
#: What its worker is called.
HOST = "stage01"
INTAKE, WORKER = f"{NAME}-intake", f"{NAME}-worker"
#: The first part of its topics.
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
    services = [*_services(world), _worker(world)]
    try:
        for service in services:
            save_service(world.state, service)
        supervisor.wait_healthy(world.state, [service.name for service in services], Deadline(START_SECONDS))
        yield world
    finally:
        for service in reversed(services):
            supervisor.retire(world.state, service.name)


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
    directory = lab.state / NAME
    return replace(
        lab,
        site=NAME,
        exchange=f"{NAME}.topic",
        queue=f"{NAME}.triggers",
        ledger_url=f"sqlite:///{directory / 'ledger.db'}",
        guests_dir=directory / "guests",
        artifacts_dir=lab.artifacts_dir / NAME,
        artifacts_url=f"{lab.artifacts_url}/{NAME}",
    )


def _services(world: World) -> list[Service]:
    (world.state / NAME).mkdir(exist_ok=True)
    world.artifacts_dir.mkdir(exist_ok=True)
    consumes = Health("consumer", f"{world.amqp_url}#{world.queue}")
    settings = environment(world)
    return [
        replace(service_of_ours("intake", settings, consumes), name=INTAKE),
        replace(service_of_ours("relay", settings), name=f"{NAME}-relay"),
        replace(service_of_ours("reconciler", settings), name=f"{NAME}-reconciler"),
    ]


def _worker(world: World) -> Service:
    server = prefect_server.prepare(world.state / "prefect")
    (port,) = free_ports(1)
    worker = replace(server, worker_port=port).worker(environment(world), PROJECT, (*WORKER_AFTER, INTAKE))
    fit = prefect_server.gated(worker, HOST, 1, world.state / NAME / "workers", queue=NAME)
    return replace(fit, name=WORKER)
