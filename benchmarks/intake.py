"""The intake and a real Prefect server under a flood of pushes, beside a bare consumer that only parses them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pika
import sqlalchemy as sa

from benchmarks.pushes import Flood, flood
from distgate.bus.queues import blocking_channel, consumers_of, declare_queue, messages_in
from distgate.errors import DistgateError, InfrastructureError
from distgate.files import tail_of
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import CHANGES
from distgate.prefect_api import PrefectApi
from distgate.process import spawn
from distgate.settings import Settings
from distgate.waiting import Deadline, wait_for
from lab.servers.prefect_server import SERVER
from lab.servers.rabbitmq import EXCHANGE
from lab.servers.service import last_start
from lab.sites.entrance import Entrance, entrance, start_service
from services.reconciler import Reconciler

TOPIC = "org.fedoraproject.prod.git.receive"
#: Sizes of the floods, in this order; the ratios are those of the largest.
SIZES = (100, 100, 100, 1000)
DRAIN_SECONDS = 600.0
#: A server that starts no run for so long has lost what is missing.
STALLED_SECONDS = 60.0


@dataclass(frozen=True)
class Drained:
    """How long a process took for the messages of a queue, in seconds of the clock and of its own CPU."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Round:
    """One flood: what became of it, and what it cost. ``lost_events`` led to no run in Prefect: the reconciler
    started these. ``server_mb`` is the Prefect server's resident memory."""

    size: int
    intake: Drained
    consumer: Drained
    counts: dict[str, int]
    runs: int
    lost_events: int
    runs_per_second: float
    server_mb: float


def measure(progress: Callable[[str], None]) -> dict[str, Any]:
    """Floods of SIZES through the intake and through a bare consumer; see docs/reliability.md for what they mean."""
    with tempfile.TemporaryDirectory(prefix="distgate-bench-") as scratch:
        progress("starting a broker and a Prefect server")
        with entrance(Path(scratch) / "entrance") as gate:
            before = server_mb(gate)
            rounds = []
            for number, size in enumerate(SIZES):
                rounds.append(one_round(gate, flood(size, f"r{number}"), Path(scratch)))
                progress(_line(rounds[-1]))
    return _summary(rounds, before)


def one_round(gate: Entrance, messages: Flood, scratch: Path) -> Round:
    """Send a flood to a bare consumer, then to the intake, and return when each accepted push has its flow run.

    Raises InfrastructureError when the counts do not add up.
    """
    consumer = drain_bare(gate, messages, scratch)
    queue = f"intake.{uuid.uuid4().hex[:8]}"
    ledger = scratch / f"{queue}.db"
    had, began = runs_of(gate), time.monotonic()
    with _queue(gate, queue):
        process = start_service("intake", gate.environment(ledger, queue), scratch / f"{queue}.log")
        with _ended(process):
            drained = _drain(gate, queue, process, messages, scratch / f"{queue}.log")
            runs = _wait_for_runs(gate, had, messages.queued)
            took = time.monotonic() - began
        mended = _start_missing(gate, ledger)
        counts = counts_of(ledger) | {"poison": messages_in(gate.broker.url, f"{queue}.dead")}
    every = runs_of(gate) - had
    if counts != messages.expected or every != messages.queued:
        raise InfrastructureError(f"the counts do not add up: {every} runs, {counts}, not {messages.expected}")
    size = len(messages.bodies)
    return Round(size, drained, consumer, counts, every, mended, round(runs / took, 2), server_mb(gate))


def drain_bare(gate: Entrance, messages: Flood, scratch: Path) -> Drained:
    """The same flood through a consumer that only parses."""
    queue = f"bare.{uuid.uuid4().hex[:8]}"
    log = scratch / f"{queue}.log"
    with _queue(gate, queue):
        argv = [sys.executable, "-m", "benchmarks.bare_consumer", gate.broker.url, queue]
        process = spawn(argv, log_to=log)
        with _ended(process):
            return _drain(gate, queue, process, messages, log)


def counts_of(ledger: Path) -> dict[str, int]:
    """What the ledger says of a flood; a repeat of a change is a duplicate."""
    opened = Ledger(f"sqlite:///{ledger}")
    with opened.transaction() as connection:
        query = sa.select(CHANGES.c.decision, sa.func.count(), sa.func.sum(CHANGES.c.seen)).group_by(
            CHANGES.c.decision
        )
        rows = connection.execute(query).all()
    opened.close()
    counts = {str(decision): int(count) for decision, count, _ in rows}
    return counts | {"duplicates": sum(int(seen) - int(count) for _, count, seen in rows)}


def runs_of(gate: Entrance) -> int:
    """How many flow runs the server has."""
    answer = httpx.post(f"{gate.prefect.api_url}/flow_runs/count", json={}, timeout=60, trust_env=False)
    return int(answer.raise_for_status().json())


def server_mb(gate: Entrance) -> float:
    """Resident memory of the Prefect server in MB."""
    started = last_start(gate.state, SERVER)
    status = Path(f"/proc/{started.pid}/status").read_text() if started else ""
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return round(int(kilobytes[0]) / 1024, 1) if kilobytes else 0.0


@contextmanager
def _queue(gate: Entrance, queue: str) -> Iterator[None]:
    declare_queue(gate.broker.url, EXCHANGE, queue, [TOPIC])
    try:
        yield
    finally:
        with blocking_channel(gate.broker.url) as channel:
            for name in (queue, f"{queue}.dead"):
                channel.queue_delete(name)
            channel.exchange_delete(f"{queue}.dead")


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _drain(gate: Entrance, queue: str, process: subprocess.Popen[bytes], messages: Flood, log: Path) -> Drained:
    url = gate.broker.url
    wait_for("the consumer", lambda: _consumed(url, queue), 60, evidence=lambda: tail_of(log))
    spent, began = _cpu_of(process.pid), time.monotonic()
    with blocking_channel(url) as channel:
        for body in messages.bodies:
            headers = {"fedora_messaging_schema": "base.message", "fedora_messaging_severity": 20}
            channel.basic_publish(
                EXCHANGE, TOPIC, body, pika.BasicProperties(message_id=uuid.uuid4().hex, headers=headers)
            )
        # Not yet with those in the consumer's hands: these are four at most, or ten.
        wait_for(
            "the queue to be empty",
            lambda: channel.queue_declare(queue, passive=True).method.message_count == 0,
            DRAIN_SECONDS,
            evidence=lambda: tail_of(log),
            interval=0.02,
        )
    return Drained(round(time.monotonic() - began, 3), round(_cpu_of(process.pid) - spent, 3))


def _consumed(url: str, queue: str) -> bool:
    try:
        return consumers_of(url, queue) > 0
    except DistgateError:
        return False


def _wait_for_runs(gate: Entrance, had: int, expected: int) -> int:
    stalled, started = Deadline(STALLED_SECONDS), 0
    while started < expected and not stalled.passed:
        count = runs_of(gate) - had
        if count > started:
            stalled.reset(STALLED_SECONDS)
        started = count
        time.sleep(0.25)
    return started


def _start_missing(gate: Entrance, ledger: Path) -> int:
    """Prefect's events may be lost; what the reconciler does about it a minute later in real life."""
    settings = Settings(sweep_after=0.01)
    with PrefectApi(gate.prefect.api_url) as prefect:
        return len(Reconciler(Ledger(f"sqlite:///{ledger}"), prefect, settings).reconcile_once())


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _line(done: Round) -> str:
    intake, consumer = (done.size / drained.seconds for drained in (done.intake, done.consumer))
    runs = f"{done.runs} runs at {done.runs_per_second}/s ({done.lost_events} by the reconciler)"
    rates = f"{done.size} pushes: {intake:.0f}/s, a bare consumer {consumer:.0f}/s"
    return f"{rates}; {runs}; the server has {done.server_mb} MB; {done.counts}"


def _summary(rounds: list[Round], before: float) -> dict[str, Any]:
    def of_size(size: int, value: Callable[[Round], float]) -> float:
        return round(median(value(done) for done in rounds if done.size == size), 2)

    def ratio(value: Callable[[Drained], float]) -> float:
        # Of the largest floods: a small one is over before the first push has settled and Prefect is asked.
        return of_size(max(SIZES), lambda done: value(done.intake) / value(done.consumer))

    sizes = {
        str(size): {
            "intake_per_second": of_size(size, lambda done: done.size / done.intake.seconds),
            "consumer_per_second": of_size(size, lambda done: done.size / done.consumer.seconds),
            "intake_over_consumer": of_size(size, lambda done: done.intake.seconds / done.consumer.seconds),
            "runs_per_second": of_size(size, lambda done: done.runs_per_second),
            "server_mb": of_size(size, lambda done: done.server_mb),
        }
        for size in sorted(set(SIZES))
    }
    return {
        "benchmark": "intake",
        "sizes": sizes,
        "server_mb_before": before,
        "intake_over_consumer": ratio(lambda drained: drained.seconds),
        "intake_over_consumer_cpu": ratio(lambda drained: drained.cpu_seconds),
        "rounds": [asdict(done) for done in rounds],
    }
