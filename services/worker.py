"""A Prefect worker that takes runs only while its host is fit for them, and ends only when it has none in hand.

Prefect can pause a pool or a queue, but no single worker, and its own worker kills its runs when it is asked to end.
This one asks the file of its health before each poll: unfit, it takes nothing but what waits in its host's own queue,
such as the health run that finds it fit again, and what asks every host for one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
from prefect.client.schemas.objects import FlowRun
from prefect.logging import get_logger
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from distgate.doctor.health import ASKING_QUEUE, Health, queue_of, read_health, write_health
from distgate.doctor.worker_health import examine_here, file_of, note_health
from distgate.errors import ConfigurationError, DistgateError
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings

#: One of Prefect's: its settings say what is shown, and drop those of other loggers.
log = get_logger("services.worker")

#: Seconds between two looks for runs that are still in hand while the worker ends.
DRAIN_SECONDS = 0.5
#: Seconds after which a host that is unfit is examined again, if not sooner: most trouble is over soon.
UNFIT_SECONDS = 30.0
#: Characters of a queue's description.
_DESCRIPTION_LENGTH = 500


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker: its pool, the shared queues it serves, its name, and how many runs it takes at once."""

    pool: str
    host: str
    limit: int
    queues: tuple[str, ...] = ("default",)

    @property
    def own_queue(self) -> str:
        """The queue of this host alone."""
        return queue_of(self.host)


class PollGate:
    """Which queues a worker may poll now, by the file ``health``."""

    def __init__(self, identity: WorkerIdentity, health: Path) -> None:
        self._identity = identity
        self._health = health
        self.draining = False
        #: Set when the file could not be written: on a full disk it would still say that all is well.
        self.stale = False
        #: Held during a poll: waiting for the last run must not overlook one that is just being taken.
        self.polling = asyncio.Lock()

    def queues(self) -> set[str]:
        """The queues to look into; none when the worker is about to end."""
        if self.draining:
            return set()
        health = read_health(self._health)
        fit = health is not None and health.fit and not self.stale
        shared = self._identity.queues if fit else ()
        return {*shared, self._identity.own_queue, ASKING_QUEUE}


class _Gated:
    """Asks the gate before each poll; for a class beside a worker of Prefect's."""

    gate: PollGate

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        async with self.gate.polling:
            queues = self.gate.queues()
            self._work_queues = queues
            if not queues:
                # What watches the worker (--with-healthcheck) takes one that does not poll for dead.
                self._last_polled_time = datetime.now(UTC)
                return []
            runs: list[FlowRun] = await super().get_and_submit_flow_runs()  # type: ignore[misc]
            return runs


def worker_class(kind: str) -> type[BaseWorker[Any, Any, Any]]:
    """Prefect's worker of a kind of pool (process, docker), with a gate. ConfigurationError for an unknown kind."""
    base = ProcessWorker if kind == "process" else BaseWorker.get_worker_class_from_type(kind)
    if base is None:
        raise ConfigurationError(f"Prefect knows no worker for pools of type {kind}", hint="process, docker")
    with warnings.catch_warnings():  # Prefect knows one class for each kind, and says that it is another one now
        warnings.simplefilter("ignore", UserWarning)
        return type(f"Gated{base.__name__}", (_Gated, base), {})


async def work(
    settings: Settings, identity: WorkerIdentity, kind: str = "process", *, with_healthcheck: bool = False
) -> None:
    """Take runs until SIGTERM or SIGINT, and return when the last one in hand has ended; a second signal ends it at
    once, with its runs. Raises ConfigurationError when there is no such pool, InfrastructureError without a server.
    """
    gate = PollGate(identity, file_of(settings, identity.host))
    first = Health(False, "not examined yet", datetime.now(UTC).timestamp())
    gate.stale = not _written(file_of(settings, identity.host), first)
    _describe_queue(settings, identity, first)
    _open_asking_queue(settings, identity)
    worker = worker_class(kind)(
        work_pool_name=identity.pool, name=identity.host, limit=identity.limit, create_pool_if_not_found=False
    )
    worker.gate = gate  # type: ignore[attr-defined]
    end = ShutdownSignals()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_drain, end, gate, worker, tasks.cancel_scope)
        tasks.start_soon(abort, end, tasks.cancel_scope)
        tasks.start_soon(_watch_health, settings, identity, gate)
        await worker.start(with_healthcheck=with_healthcheck, printer=log.info)


async def _watch_health(settings: Settings, identity: WorkerIdentity, gate: PollGate) -> None:
    """Examine the host's health for ever; nothing that goes wrong here ends the worker, and its runs with it."""
    logged: Health | None = None
    while True:
        health, gate.stale = await anyio.to_thread.run_sync(_examine, settings, identity, abandon_on_cancel=True)
        if logged is None or (logged.fit, logged.sentence) != (health.fit, health.sentence):
            log.log(logging.INFO if health.fit else logging.ERROR, "%s", _description(health))
            await anyio.to_thread.run_sync(_describe_queue_or_log, settings, identity, health, abandon_on_cancel=True)
        logged = health
        await anyio.sleep(settings.health_every if health.fit else min(settings.health_every, UNFIT_SECONDS))


def _examine(settings: Settings, identity: WorkerIdentity) -> tuple[Health, bool]:
    """The host's health, and whether it could not be written down."""
    report = examine_here(settings)
    try:
        return note_health(settings, identity.host, report), False
    except OSError as error:
        sentence = f"its health cannot be written down: {error.strerror or error}"
        return Health(False, sentence, datetime.now(UTC).timestamp()), True


def _written(path: Path, health: Health) -> bool:
    try:
        write_health(path, health)
    except OSError:
        return False
    return True


def _describe_queue(settings: Settings, identity: WorkerIdentity, health: Health) -> None:
    """Write the health into the description of the host's queue; a queue that is missing is made."""
    with PrefectApi(settings.prefect_api_url, patience=30) as prefect:
        prefect.describe_queue(identity.pool, identity.own_queue, _description(health)[:_DESCRIPTION_LENGTH])


def _open_asking_queue(settings: Settings, identity: WorkerIdentity) -> None:
    """Prefect gives a worker nothing at all that asks for a queue which is not there."""
    with PrefectApi(settings.prefect_api_url, patience=30) as prefect:
        prefect.describe_queue(
            identity.pool, ASKING_QUEUE, "what asks every host for its health; served by unfit workers"
        )


def _describe_queue_or_log(settings: Settings, identity: WorkerIdentity, health: Health) -> None:
    try:
        _describe_queue(settings, identity, health)
    except DistgateError as error:
        log.warning("the description of the queue %s is not up to date: %s", identity.own_queue, error)


def _description(health: Health) -> str:
    return f"{'takes runs' if health.fit else 'takes no runs'}: {health.sentence}"


class ShutdownSignals:
    """The first SIGTERM or SIGINT sets ``drain``: end after the runs in hand; the second sets ``abort``: at once."""

    def __init__(self) -> None:
        self.drain, self.abort = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self.abort if self.drain.is_set() else self.drain).set()


async def _drain(
    end: ShutdownSignals, gate: PollGate, worker: BaseWorker[Any, Any, Any], scope: anyio.CancelScope
) -> None:
    await end.drain.wait()
    gate.draining = True
    async with gate.polling:  # a poll under way may have taken one more
        log.info("no more runs are taken; %d in hand are awaited", worker.limiter.borrowed_tokens)
    while worker.limiter.borrowed_tokens:
        await anyio.sleep(DRAIN_SECONDS)
    scope.cancel()


async def abort(end: ShutdownSignals, scope: anyio.CancelScope) -> None:
    await end.abort.wait()
    log.warning("a second signal: the runs in hand are given up")
    scope.cancel()


def serve_runs(settings: Settings, identity: WorkerIdentity, kind: str, *, with_healthcheck: bool) -> None:
    """``work``, as a process of its own."""
    asyncio.run(work(settings, identity, kind, with_healthcheck=with_healthcheck))
