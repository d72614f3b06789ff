"""How many runs may do one thing at a time: global limits of Prefect's, whose slots a holder loses when it dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from prefect import get_client, get_run_logger
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.client.schemas.responses import GlobalConcurrencyLimitResponse
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists
from prefect.states import Running

from distgate.pipelines import GUESTS_LIMIT, KOJI_LIMIT, OSTREE_LIMIT
from distgate.settings import settings
from tasks.run.job import Job

#: Seconds after which the slot of a run that died is free again.
SLOT_SECONDS = 60.0
#: The name of a run's state while it has to wait; what for is its message.
WAITING = "Waiting"


@contextmanager
def slot(job: Job, name: str, limit: int, purpose: str) -> Iterator[None]:
    """A slot of the global limit ``name`` for the block; a run that has to wait says for what on its page
    and in its log.

    A limit that is not there yet is made with ``limit`` slots. One that is there keeps the number that operators gave
    it. ``limit`` 0 asks for nothing.
    """
    if not limit:
        yield
        return
    with get_client(sync_client=True) as client:
        existing = _limit(client, name, limit)
        busy = existing.active_slots >= existing.limit
        if busy:
            _show_waiting(client, job, f"waits for its turn {purpose}: limit {name}, {_taken(existing)}")
    holder, began = ConcurrencyLeaseHolder(type="flow_run", id=UUID(job.run_id)), time.monotonic()
    with concurrency(name, occupy=1, lease_duration=SLOT_SECONDS, holder=holder):
        if busy:
            get_run_logger().info("%s: its turn %s after %.0f s", job.change.title, purpose, time.monotonic() - began)
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(UUID(job.run_id), Running(), force=True)
        yield


@contextmanager
def build_slot(job: Job) -> Iterator[None]:
    """One of DISTGATE_KOJI_SLOTS, for a scratch build."""
    with slot(job, f"{KOJI_LIMIT}{job.site}", settings().koji_slots, "to build in Koji"):
        yield


@contextmanager
def guest_slot(job: Job) -> Iterator[None]:
    """One of DISTGATE_GUEST_SLOTS of this host, for a stage that boots."""
    host = settings().host_name
    with slot(job, f"{GUESTS_LIMIT}{host}", settings().guest_slots, f"for a guest on {host}"):
        yield


@contextmanager
def branch_slot(job: Job) -> Iterator[None]:
    """The only one of the branch's trees."""
    with slot(job, f"{OSTREE_LIMIT}{job.change.branch}", 1, f"to compose {job.change.branch}"):
        yield


def _limit(client: SyncPrefectClient, name: str, limit: int) -> GlobalConcurrencyLimitResponse:
    with suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=limit))
    return client.read_global_concurrency_limit_by_name(name)


def _taken(existing: GlobalConcurrencyLimitResponse) -> str:
    return "its slot is taken" if existing.limit == 1 else f"its {existing.limit} slots are taken"


def _show_waiting(client: SyncPrefectClient, job: Job, message: str) -> None:
    get_run_logger().info("%s: %s", job.change.title, message)
    client.set_flow_run_state(UUID(job.run_id), Running(name=WAITING, message=message), force=True)
