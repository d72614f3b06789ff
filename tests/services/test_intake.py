"""The intake against a real broker and a real Prefect server: written down, told, and only then acknowledged."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pika
import pytest

from distgate.bus.amqp import Publisher
from distgate.bus.queues import consumers_of, messages_in
from distgate.errors import DistgateError
from distgate.files import tail_of
from distgate.ledger.ledger import Ledger
from distgate.operations.ledger_queries import ledger_snapshot
from distgate.process import environment
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import Broker

pytestmark = pytest.mark.lab
TOPIC = "org.fedoraproject.prod.git.receive"


@dataclass(frozen=True)
class Bench:
    """A running intake with a queue and a ledger of its own, and what a test does with it."""

    scratch: Path
    url: str
    queue: str
    exchange: str
    api: str

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.scratch}/ledger.db")

    def log(self) -> str:
        return tail_of(self.scratch / "intake.log", 20_000)

    def send(self, body: Any, times: int = 1) -> None:
        with Publisher(self.url, self.exchange) as publisher:
            for _ in range(times):
                publisher.publish_plain(TOPIC, body)

    def _written(self) -> int:
        return sum(trigger.seen for trigger in ledger_snapshot(self.ledger).triggers)

    def settle(self, known: int) -> dict[str, int]:
        """The ledger's counts once ``known`` messages stand in it.

        The log is not asked: a message that is tried again, as when the ledger is locked, stands there twice.
        """
        wait_for(f"{known} messages in the ledger", lambda: self._written() >= known, 60, evidence=self.log)
        wait_for("the queue to be empty", lambda: messages_in(self.url, self.queue) == 0, 30)
        return self.ledger.counts()


@pytest.fixture
def bench(tmp_path: Path, broker: Broker, prefect_server: PrefectServer) -> Iterator[Bench]:
    # An exchange of its own: on the usual one a whole lab, where there is one, has its intake listen as well.
    name = f"t{uuid.uuid4().hex[:8]}"
    made = Bench(tmp_path, broker.url, name, f"{name}.topic", prefect_server.api_url)
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        connection.channel().exchange_declare(made.exchange, exchange_type="topic", durable=True)
    own = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{tmp_path}/ledger.db",
        "DISTGATE_AMQP_URL": broker.url,
        "DISTGATE_EXCHANGE": made.exchange,
        "DISTGATE_QUEUE": made.queue,
        "PREFECT_API_URL": prefect_server.api_url,
    }
    with (tmp_path / "intake.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.intake"], env=environment(own), stdout=log, stderr=log
        )
    try:
        wait_for("the intake to consume", lambda: _consumed(made), 60, evidence=made.log)
        yield made
    finally:
        process.terminate()
        assert process.wait(30) == 0


def _consumed(bench: Bench) -> bool:
    try:
        return consumers_of(bench.url, bench.queue) > 0
    except DistgateError:
        return False


def push(**fields: str) -> dict[str, Any]:
    commit = {
        "namespace": "rpms",
        "repo": "tiny",
        "rev": uuid.uuid4().hex + "0" * 8,
        "branch": "f41",
        "username": "jane",
    }
    return {"commit": commit | fields}


def events_for(bench: Bench, rev: str) -> list[dict[str, Any]]:
    wish = {
        "filter": {"resource": {"labels": {"distgate.rev": [rev]}}, "event": {"name": ["distgate.change.accepted"]}}
    }
    found: list[dict[str, Any]] = httpx.post(f"{bench.api}/events/filter", json=wish, timeout=30).json()["events"]
    return found


def test_one_push_said_three_times_is_one_change_and_one_event(bench: Bench) -> None:
    body = push()
    bench.send(body, times=3)
    assert bench.settle(3)["queued"] == 1
    rev = body["commit"]["rev"]
    (event,) = wait_for("the event", lambda: events_for(bench, rev) or None, 30)
    assert event["payload"]["change"]["rev"] == rev
    assert all(isinstance(value, str) for value in event["payload"]["change"].values())


def test_a_push_of_three_commits_gives_one_event_of_its_head(bench: Bench) -> None:
    bodies = [push(repo="three") for _ in range(3)]
    for body in bodies:
        bench.send(body)
    wait_for("the push to settle", lambda: bench.ledger.counts().get("ignored") == 2, 60, evidence=bench.log)
    head = bodies[-1]["commit"]["rev"]
    wait_for("the event", lambda: events_for(bench, head) or None, 30)
    assert [len(events_for(bench, body["commit"]["rev"])) for body in bodies] == [0, 0, 1]
    assert bench.settle(3)["unsent"] == 2


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"branch": "epel9"}, "branch"),
        ({"namespace": "modules"}, "namespace"),
        ({"path": "/srv/git/repositories/forks/joe/rpms/tiny.git"}, "fork"),
    ],
    ids=["unwatched branch", "another namespace", "fork"],
)
def test_what_is_ignored_is_said_once_and_starts_nothing(bench: Bench, fields: dict[str, str], rule: str) -> None:
    body = push(**fields)
    bench.send(body, times=2)
    counts = bench.settle(2)
    assert (counts["ignored"], counts["unsent"]) == (1, 1)
    (letter,) = bench.ledger.unsent()
    assert letter.topic.endswith(".allpackages.package.ignored")
    assert letter.body["rev"] == body["commit"]["rev"]
    assert events_for(bench, body["commit"]["rev"]) == []


def test_poison_goes_to_the_dead_letters_and_the_next_push_is_read(bench: Bench) -> None:
    bench.send({"commit": {"repo": "../x"}})
    bench.send({"commit": json.loads('{"__prefect_kind": "jinja", "template": "{{ 7*7 }}"}')})
    bench.send(push())
    # A rejection may be told in several lines, so that the log does not say when the push, too, was handled.
    wait_for("the push", lambda: bench.ledger.counts().get("queued") == 1, 60, evidence=bench.log)
    assert messages_in(bench.url, f"{bench.queue}.dead") == 2
