"""Replay and dead letters from the command line, against a real Prefect server and a real broker."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pika
import pytest
from fedora_messaging.message import Message

from distgate.bus.queues import blocking_channel, declare_queue, messages_in
from distgate.changes.change import Change, MalformedMessage
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import reject, rejections
from distgate.prefect_api import PrefectApi
from distgate.process import Completed, run
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import EXCHANGE, Broker
from services.intake import Intake

pytestmark = pytest.mark.lab
TOPIC = "org.fedoraproject.prod.git.receive"
#: What does not depend on the database is shown on one of them.
sqlite = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
CHANGE = Change(namespace="rpms", repo="tiny", rev="ab" * 20, branch="f41", username="jane", summary="Fix it")


@dataclass(frozen=True)
class Bench:
    """A ledger, a deployment that nobody runs and a queue that nobody reads, and the command line for them."""

    ledger: Ledger
    queue: str
    broker: Broker
    prefect: PrefectApi
    environment: dict[str, str]

    def distgate(self, *words: str, stdin: str = "") -> Completed:
        own = f"from distgate.cli.main import main; main({list(words)!r})"
        return run(
            [sys.executable, "-c", own],
            timeout=120,
            stdin=stdin,
            env=self.environment,
            allowed=range(3),
            split_errors=True,
        )

    def json(self, *words: str, stdin: str = "") -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.distgate(*words, "--json", stdin=stdin).output)
        return told

    def waiting(self) -> tuple[int, int]:
        """How many messages are in the queue and in its dead letters."""
        return messages_in(self.broker.url, self.queue), messages_in(self.broker.url, f"{self.queue}.dead")


@pytest.fixture
def bench(ledger_url: str, broker: Broker, prefect_server: PrefectServer) -> Iterator[Bench]:
    name = uuid.uuid4().hex[:8]
    with httpx.Client(base_url=f"{prefect_server.api_url}/", trust_env=False, timeout=60) as client:
        flow = wait_for("a flow", lambda: _made(client, "flows/", name="quiet"), 60)
        for one in (name, f"{name}-atomic"):
            wait_for("a deployment", lambda one=one: _made(client, "deployments/", name=one, flow_id=flow["id"]), 60)
    declare_queue(broker.url, EXCHANGE, f"q{name}", [f"{name}.nothing"])
    own = {
        "DISTGATE_LEDGER_URL": ledger_url,
        "DISTGATE_MANUAL_DEPLOYMENT": f"quiet/{name}",
        "DISTGATE_ATOMIC_MANUAL_DEPLOYMENT": f"quiet/{name}-atomic",
        "DISTGATE_AMQP_URL": broker.url,
        "DISTGATE_QUEUE": f"q{name}",
        "DISTGATE_UI_URL": "http://ui",
        "PREFECT_API_URL": prefect_server.api_url,
    }
    with PrefectApi(prefect_server.api_url) as prefect:
        yield Bench(Ledger(ledger_url), f"q{name}", broker, prefect, own)


def _made(client: httpx.Client, path: str, **body: str) -> dict[str, Any] | None:
    answer = client.post(path, json=body)
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return None
    made: dict[str, Any] = answer.raise_for_status().json()
    return made


@sqlite
def test_a_message_is_replayed_as_a_forced_re_run_each_time_anew(bench: Bench, tmp_path: Path) -> None:
    push = json.dumps({"topic": TOPIC, "msg": {"commit": CHANGE.model_dump()}})
    file = tmp_path / "push.json"
    file.write_text(push)
    said = [bench.json("replay", str(file)), bench.json("replay", "-", stdin=push)]
    assert len({one["flow_run"] for one in said}) == 2
    for one in said:
        found = bench.prefect.flow_run(one["flow_run"])
        assert found is not None
        assert found.parameters == {"change": CHANGE.model_dump(), "again": True}
        assert one["url"] == f"http://ui/runs/flow-run/{found.id}"
        assert one["change"] == CHANGE.key


def test_a_run_is_replayed_by_its_id_and_the_new_one_may_claim_its_change(bench: Bench) -> None:
    first = str(uuid.uuid4())
    bench.ledger.claim(CHANGE, first, "http://ui/first")
    again = bench.json("replay", first)["flow_run"]
    found = bench.prefect.flow_run(again)
    assert found is not None
    given = found.parameters
    claimed = bench.ledger.claim(Change.model_validate(given["change"]), again, "http://ui", again=given["again"])
    assert claimed is not None
    assert [one.run_id for one in bench.ledger.runs_of(CHANGE.key)] == [first, again]
    assert "tiny f41 abababa is tested again" in bench.distgate("replay", f"{first}.2").output
    assert "tiny f41 abababa is tested again" in bench.distgate("replay", first[:13]).output


def test_a_beginning_that_several_runs_share_is_refused_with_their_ids(bench: Bench) -> None:
    runs = [f"abcd0000-0000-0000-0000-00000000000{number}" for number in range(2)]
    for one in runs:
        bench.ledger.claim(CHANGE, one, "http://ui", again=True)
    ended = bench.distgate("replay", "abcd")
    assert ended.returncode == 2
    assert "several runs begin with abcd" in ended.errors
    assert all(one in ended.errors for one in runs)


@sqlite
def test_a_run_of_atomic_host_is_replayed_by_its_own_deployment_and_by_the_other_when_asked(bench: Bench) -> None:
    first = str(uuid.uuid4())
    bench.ledger.claim(CHANGE, first, "http://ui/first", pipeline="atomic")
    for words, pipeline in (((), "atomic"), (("--pipeline", "allpackages"), "allpackages")):
        told = bench.json("replay", first, *words)
        assert told["pipeline"] == pipeline
        found = bench.prefect.flow_run(told["flow_run"])
        assert found is not None
        variable = f"DISTGATE_{'ATOMIC_' if pipeline == 'atomic' else ''}MANUAL_DEPLOYMENT"
        assert found.deployment_id == bench.prefect.deployment_id(bench.environment[variable])


def test_dead_letters_are_listed_with_their_reasons_and_stay_until_they_are_put_back(bench: Bench) -> None:
    reject(bench.ledger, "noted", TOPIC, "the message has no commit")
    bodies = {"noted": b"{}", "unseen": b"{truncated", "escape\x1b[2J": b"[]"}
    with blocking_channel(bench.broker.url) as channel:
        for message_id, body in bodies.items():
            own = pika.BasicProperties(message_id=message_id)
            channel.basic_publish(f"{bench.queue}.dead", TOPIC, body, own)
    wait_for("the dead letters", lambda: bench.waiting() == (0, 3), 10)
    for _ in range(2):
        letters = {one["message_id"]: one for one in bench.json("triggers", "dead", "list")["letters"]}
        assert letters["noted"]["reason"] == "the message has no commit"
        assert "not JSON" in letters["unseen"]["reason"]
        assert {one["topic"] for one in letters.values()} == {TOPIC}
    told = bench.distgate("triggers", "dead", "list")
    assert (told.returncode, "\x1b" in told.output) == (0, False)
    assert "unseen" in told.output
    wait_for("all to be back", lambda: bench.waiting() == (0, 3), 10)

    reject(bench.ledger, "gone", TOPIC, "the message has no commit")
    back = bench.distgate("triggers", "dead", "requeue", "noted", "gone", "--json")
    assert (back.returncode, json.loads(back.output)) == (1, {"requeued": ["noted"], "missing": ["gone"]})
    assert [one.message_id for one in rejections(bench.ledger) if one.requeued_at] == ["noted"]
    assert bench.waiting() == (1, 2)
    assert bench.distgate("triggers", "dead", "requeue", "--all").returncode == 0
    assert bench.waiting() == (3, 0)
    assert bench.json("triggers", "dead", "list")["letters"] == []


def test_what_the_intake_refuses_is_counted_in_the_books(bench: Bench) -> None:
    own = Settings(prefect_api_url=bench.prefect.url)
    intake = Intake(bench.ledger, bench.prefect, own)
    poison = Message(topic=TOPIC, body={"commit": {"repo": "../x"}})
    for _ in range(2):
        with pytest.raises(MalformedMessage):
            intake.handle(poison)
    (noted,) = rejections(bench.ledger)
    assert (noted.message_id, noted.topic, noted.seen) == (poison.id, TOPIC, 2)
    assert noted.reason
    found = bench.json("audit")
    assert (found["balanced"], found["triggers"]["rejected"], found["triggers"]["total"]) == (True, 2, 2)
