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

#: One of Prefect's: its settings say what is shown, and drop everybody else's.
log = get_logger("services.worker")

#: Seconds between two looks for runs that are still in hand while the worker ends.
DRAIN_SECONDS = 0.5
#: Seconds after which a host that is unfit is looked at again, if not sooner: most trouble is over soon.
UNFIT_SECONDS = 30.0
#: Characters of a queue's description.
_WORDS = 500


@dataclass(frozen=True)
class WorkerIdentity:
    """Where a worker stands: its pool, the shared queues it serves, its name, and how many runs it takes at once."""

    pool: str
    host: str
    limit: int
    queues: tuple[str, ...] = ("default",)

    @property
    def own_queue(self) -> str:
        """What waits for this very host."""
        return queue_of(self.host)


class PollGate:
    """What a worker may take just now, by the file ``health``."""

    def __init__(self, post: WorkerIdentity, health: Path) -> None:
        self._post = post
        self._health = health
        self.draining = False
        #: Set when the file could not be written: on a full disk it would still say that all is well.
        self.stale = False
        #: Held during a poll: whoever waits for the last run must not overlook one that is just being taken.
        self.polling = asyncio.Lock()

    def queues(self) -> set[str]:
        """The queues to look into; none when the worker is about to end."""
        if self.draining:
            return set()
        health = read_health(self._health)
        fit = health is not None and health.fit and not self.stale
        shared = self._post.queues if fit else ()
        return {*shared, self._post.own_queue, ASKING_QUEUE}


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
            taken: list[FlowRun] = await super().get_and_submit_flow_runs()  # type: ignore[misc]
            return taken


def worker_class(kind: str) -> type[BaseWorker[Any, Any, Any]]:
    """Prefect's worker of a kind of pool (process, docker), with a gate. ConfigurationError for an unknown kind."""
    found = ProcessWorker if kind == "process" else BaseWorker.get_worker_class_from_type(kind)
    if found is None:
        raise ConfigurationError(f"Prefect knows no worker for pools of type {kind}", hint="process, docker")
    with warnings.catch_warnings():  # Prefect knows one class for each kind, and says that it is another one now
        warnings.simplefilter("ignore", UserWarning)
        return type(f"Gated{found.__name__}", (_Gated, found), {})


async def work(own: Settings, post: WorkerIdentity, kind: str = "process", *, with_healthcheck: bool = False) -> None:
    """Take runs until SIGTERM or SIGINT, and return when the last one in hand has ended; a second signal ends it at
    once, with its runs. Raises ConfigurationError when there is no such pool, InfrastructureError without a server.
    """
    gate = PollGate(post, file_of(own, post.host))
    first = Health(False, "nobody has looked yet", datetime.now(UTC).timestamp())
    gate.stale = not _written(file_of(own, post.host), first)
    _tell(own, post, first)
    _open_asking_queue(own, post)
    made = worker_class(kind)(
        work_pool_name=post.pool, name=post.host, limit=post.limit, create_pool_if_not_found=False
    )
    made.gate = gate  # type: ignore[attr-defined]
    end = ShutdownSignals()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_drain, end, gate, made, tasks.cancel_scope)
        tasks.start_soon(abort, end, tasks.cancel_scope)
        tasks.start_soon(_look_after, own, post, gate)
        await made.start(with_healthcheck=with_healthcheck, printer=log.info)


async def _look_after(own: Settings, post: WorkerIdentity, gate: PollGate) -> None:
    """Look at the host's health for ever; nothing that goes wrong here ends the worker, and its runs with it."""
    told: Health | None = None
    while True:
        health, gate.stale = await anyio.to_thread.run_sync(_look, own, post, abandon_on_cancel=True)
        if told is None or (told.fit, told.sentence) != (health.fit, health.sentence):
            log.log(logging.INFO if health.fit else logging.ERROR, "%s", _words(health))
            await anyio.to_thread.run_sync(_tell_if_possible, own, post, health, abandon_on_cancel=True)
        told = health
        await anyio.sleep(own.health_every if health.fit else min(own.health_every, UNFIT_SECONDS))


def _look(own: Settings, post: WorkerIdentity) -> tuple[Health, bool]:
    """The host's health, and whether it could not be written down."""
    report = examine_here(own)
    try:
        return note_health(own, post.host, report), False
    except OSError as error:
        words = f"its health cannot be written down: {error.strerror or error}"
        return Health(False, words, datetime.now(UTC).timestamp()), True


def _written(path: Path, health: Health) -> bool:
    try:
        write_health(path, health)
    except OSError:
        return False
    return True


def _tell(own: Settings, post: WorkerIdentity, health: Health) -> None:
    """Write it beside the host's queue, which is there from then on."""
    with PrefectApi(own.prefect_api_url, patience=30) as prefect:
        prefect.describe_queue(post.pool, post.own_queue, _words(health)[:_WORDS])


def _open_asking_queue(own: Settings, post: WorkerIdentity) -> None:
    """Prefect gives a worker nothing at all that asks for a queue which is not there."""
    with PrefectApi(own.prefect_api_url, patience=30) as prefect:
        prefect.describe_queue(
            post.pool, ASKING_QUEUE, "what asks every host for its health; served by unfit workers"
        )


def _tell_if_possible(own: Settings, post: WorkerIdentity, health: Health) -> None:
    try:
        _tell(own, post, health)
    except DistgateError as error:
        log.warning("the queue %s does not say how its host is: %s", post.own_queue, error)


def _words(health: Health) -> str:
    return f"{'takes runs' if health.fit else 'takes no runs'}: {health.sentence}"


class ShutdownSignals:
    """Told by signals that the worker is to end: after the runs in hand, or, asked again, at once."""

    def __init__(self) -> None:
        self.asked, self.hurried = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        (self.hurried if self.asked.is_set() else self.asked).set()


async def _drain(
    end: ShutdownSignals, gate: PollGate, made: BaseWorker[Any, Any, Any], scope: anyio.CancelScope
) -> None:
    await end.asked.wait()
    gate.draining = True
    async with gate.polling:  # a poll under way may have taken one more
        log.info("no more runs are taken; %d in hand are awaited", made.limiter.borrowed_tokens)
    while made.limiter.borrowed_tokens:
        await anyio.sleep(DRAIN_SECONDS)
    scope.cancel()


async def abort(end: ShutdownSignals, scope: anyio.CancelScope) -> None:
    await end.hurried.wait()
    log.warning("asked again: the runs in hand are given up")
    scope.cancel()


def serve_runs(own: Settings, post: WorkerIdentity, kind: str, *, with_healthcheck: bool) -> None:
    """``work``, as a process of its own."""
    asyncio.run(work(own, post, kind, with_healthcheck=with_healthcheck))
