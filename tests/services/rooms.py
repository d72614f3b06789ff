"""What a fault test has to itself: a ledger, a queue, a topic, and the services it starts and kills."""

from __future__ import annotations

import json
import random
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pika

from distgate.announcements import Announcer
from distgate.audit import audit
from distgate.change import Change
from distgate.drivers.amqp import blocking_channel
from distgate.drivers.amqp_queues import Subscription, consumers_of
from distgate.drivers.prefect_api import FlowRun, PrefectApi
from distgate.errors import DistgateError
from distgate.ledger import Ledger, Letter
from distgate.ledger_books import books
from distgate.process import tail_of
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.entrance import Entrance, start_service
from lab.rabbitmq import EXCHANGE

TOPIC = "org.fedoraproject.prod.git.receive"
STATES = [
    ("package", "queued"),
    ("package", "running"),
    ("package", "complete"),
    ("image", "queued"),
    ("image", "running"),
]
#: What a run of write_runs puts into the outbox: the states, and what close() adds to them.
LETTERS = len(STATES) + 2


@dataclass
class Room:
    """A ledger, a queue and a topic of one test, and the services it started."""

    gate: Entrance
    scratch: Path
    directory: Path
    queue: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")

    @property
    def url(self) -> str:
        return self.gate.broker.url

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.directory}/ledger.db")

    @property
    def root(self) -> str:
        """The topics of this test begin like this: the broker is shared."""
        return f"org.{self.queue}"

    # -- services --------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self, name: str, **other: str) -> Iterator[subprocess.Popen[bytes]]:
        """A service, ended in order at the end unless the test has killed it."""
        environment = self.gate.environment(self.directory / "ledger.db", self.queue) | other
        process = start_service(name, environment, self.scratch / f"{name}.log")
        try:
            if name == "intake":
                wait_for("the intake to consume", self._consumed, 90, evidence=lambda: self.log("intake"))
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(90)

    def log(self, name: str) -> str:
        return tail_of(self.scratch / f"{name}.log", 200_000)

    def _consumed(self) -> bool:
        try:
            return consumers_of(self.url, self.queue) > 0
        except DistgateError:
            return False

    # -- pushes ----------------------------------------------------------------------------------------------------

    def send(self, *bodies: Any) -> None:
        for body in bodies:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_raw(raw, TOPIC, pika.BasicProperties(message_id=str(uuid.uuid4()), headers=headers()))

    def send_raw(self, body: bytes, topic: str, properties: pika.BasicProperties) -> None:
        with blocking_channel(self.url) as channel:
            channel.confirm_delivery()
            channel.basic_publish(EXCHANGE, topic, body, properties)

    def waiting(self) -> tuple[int, int]:
        """Messages of the queue that nobody has, and that a consumer has and did not acknowledge."""
        said = self.gate.broker.control(
            "-q", "list_queues", "--no-table-headers", "name", "messages_ready", "messages_unacknowledged"
        )
        [found] = [line.split() for line in said.splitlines() if line.startswith(f"{self.queue}\t")]
        return int(found[1]), int(found[2])

    def settle(self, queued: int) -> None:
        """Return when so many changes were accepted and every message was acknowledged."""
        wait_for(
            f"{queued} changes to be accepted",
            lambda: self.ledger.counts().get("queued", 0) >= queued,
            90,
            evidence=lambda: self.log("intake"),
        )
        wait_for("every message to be acknowledged", lambda: self.waiting() == (0, 0), 60)

    def runs_for(self, *revs: str) -> list[int]:
        """How many flow runs each commit has, once each has one and so has a push that was sent later."""
        self._wait_for_runs(list(revs))
        later = push()
        self.send(later)
        self._wait_for_runs([rev_of(later)])
        return [len(self.runs(rev)) for rev in revs]

    def _wait_for_runs(self, revs: list[str]) -> None:
        wait_for(
            "every commit to have a run",
            lambda: all(self.runs(rev) for rev in revs),
            90,
            evidence=lambda: self.log("intake"),
            interval=0.5,
        )

    def runs(self, rev: str) -> list[FlowRun]:
        with PrefectApi(self.gate.prefect.api_url) as prefect:
            found = prefect.flow_runs(deployment="all-packages/production", limit=5000)
        return [one for one in found if one.parameters["change"]["rev"] == rev]

    def dead(self) -> dict[str, bytes]:
        """Takes the dead letters: the name that the sender gave each (or its number), and its content."""
        found: dict[str, bytes] = {}
        with blocking_channel(self.url) as channel:
            while (letter := channel.basic_get(f"{self.queue}.dead", auto_ack=True))[0] is not None:
                found[letter[1].correlation_id or str(len(found))] = letter[2]
        return found

    def events_for(self, rev: str) -> list[dict[str, Any]]:
        labels = {"labels": {"distgate.rev": [rev]}}
        wish = {"filter": {"resource": labels, "event": {"name": ["distgate.change.accepted"]}}}
        answer = httpx.post(f"{self.gate.prefect.api_url}/events/filter", json=wish, timeout=30, trust_env=False)
        found: list[dict[str, Any]] = answer.json()["events"]
        return found

    # -- the outbox ------------------------------------------------------------------------------------------------

    def write_runs(self, *runs: str) -> list[Letter]:
        """Put the messages of some runs into the outbox; what is there, in order."""
        ledger = self.ledger
        announcer = Announcer(ledger, Settings(main_topic=self.root))
        for number, name in enumerate(runs):
            rev = f"{number:02x}" * 20
            change = Change(namespace="rpms", repo=f"pkg-{name}", rev=rev, branch="f41", username="jane")
            ledger.claim(change, name, "http://ui/run")
            for suffix, state in STATES:
                announcer.stage(name, suffix, state)
            announcer.close(name, "FAILURE")
        return [letter for name in runs for letter in ledger.letters_of(name)]

    def bus(self) -> Subscription:
        """Reads what the relay sends, from a durable queue."""
        return Subscription(self.url, EXCHANGE, [f"{self.root}.#"], queue=f"{self.queue}.read")

    def delivered(self) -> None:
        """Return when the outbox is empty."""
        wait_for("the outbox to be empty", lambda: not self.ledger.unsent(), 120, evidence=lambda: self.log("relay"))


def everything(bus: Subscription) -> list[tuple[str, str]]:
    """Topic and ID of every message that waits in the queue."""
    return [(one.topic, one.message_id) for one in iter(lambda: bus.receive(1), None)]


def as_sent(letters: list[Letter]) -> list[tuple[str, str]]:
    return [(letter.topic, letter.message_id) for letter in letters]


def push(**fields: Any) -> dict[str, Any]:
    """A push to a repository that nobody else has pushed to: no rule but the tested one can speak."""
    rev = f"{random.getrandbits(160):040x}"
    commit = {"namespace": "rpms", "repo": f"p{rev[:12]}", "rev": rev, "branch": "f41", "username": "jane"}
    return {"commit": commit | fields}


def rev_of(body: dict[str, Any]) -> str:
    return str(body["commit"]["rev"])


def headers() -> dict[str, Any]:
    return {"fedora_messaging_schema": "base.message", "fedora_messaging_severity": 20}


def fill(directory: Path) -> Path:
    """Leave not a byte on the disk of ``directory``; returns what to delete to have them back."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (65536, 4096, 1):
            try:
                while True:
                    stream.write(b"x" * size)
            except OSError:
                continue
    return filler


def tidy(room: Room) -> None:
    """Whatever was broken, the books balance afterwards; then the broker forgets the room."""
    assert list(audit(books(room.ledger), time.time()).problems) == []
    with blocking_channel(room.url) as channel:
        for name in (room.queue, f"{room.queue}.dead", f"{room.queue}.read"):
            channel.queue_delete(name)
        channel.exchange_delete(f"{room.queue}.dead")
