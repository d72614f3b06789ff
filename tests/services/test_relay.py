"""The relay against a real broker: in order, confirmed, and with an ID that does not change."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.announcements import Announcer
from distgate.change import Change
from distgate.drivers.amqp_queues import Subscription
from distgate.ledger import Ledger
from distgate.process import environment, tail_of
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.rabbitmq import EXCHANGE, Broker

pytestmark = pytest.mark.lab
STATES = [("package", "queued"), ("package", "running"), ("package", "complete"), ("image", "queued")]


@pytest.fixture
def topic() -> str:
    """A topic root of the test's own: the broker is shared."""
    return f"org.t{uuid.uuid4().hex[:8]}.stage"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path}/ledger.db")


def write_run(ledger: Ledger, topic: str, run: str) -> None:
    change = Change(namespace="rpms", repo=f"pkg{run}", rev=run * 40, branch="f41", username="jane")
    announcer = Announcer(ledger, Settings(main_topic=topic))
    ledger.claim(change, run, "http://ui/run")
    for suffix, state in STATES:
        announcer.stage(run, suffix, state)
    announcer.close(run)


@pytest.fixture
def relay(tmp_path: Path, broker: Broker) -> Iterator[subprocess.Popen[bytes]]:
    process = start(tmp_path, broker.url)
    yield process
    process.terminate()
    assert process.wait(20) == 0


def start(scratch: Path, url: str, exchange: str = EXCHANGE) -> subprocess.Popen[bytes]:
    own = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{scratch}/ledger.db",
        "DISTGATE_AMQP_URL": url,
        "DISTGATE_EXCHANGE": exchange,
    }
    with (scratch / "relay.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "services.relay"], env=environment(own), stdout=log, stderr=log
        )


def test_messages_arrive_in_order_with_the_ids_of_the_outbox(
    broker: Broker, ledger: Ledger, topic: str, relay: subprocess.Popen[bytes]
) -> None:
    with Subscription(broker.url, EXCHANGE, [f"{topic}.#"]) as bus:
        for run in "12":
            write_run(ledger, topic, run)
        read = [bus.receive(30) for _ in range(12)]
    letters = [letter for run in "12" for letter in ledger.letters_of(run)]
    assert [(x.topic, x.message_id, x.body) for x in read if x] == [(x.topic, x.message_id, x.body) for x in letters]
    assert {x.headers["fedora_messaging_schema"] for x in read if x} == {"distgate.allpackages.StageV1"}
    wait_for("all to be marked as sent", lambda: not ledger.unsent(), 10)


def test_a_relay_that_was_killed_goes_on_where_the_broker_confirmed(
    broker: Broker, ledger: Ledger, topic: str, tmp_path: Path
) -> None:
    runs = "123456789abcdef"
    with Subscription(broker.url, EXCHANGE, [f"{topic}.#"], queue=f"q{topic}") as bus:
        for run in runs:
            write_run(ledger, topic, run)
        first = start(tmp_path, broker.url)
        wait_for("some messages to be sent", lambda: ledger.counts()["sent"] > 5, 60, interval=0.01)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = start(tmp_path, broker.url)
        wait_for(
            "the rest to be sent", lambda: not ledger.unsent(), 60, evidence=lambda: tail_of(tmp_path / "relay.log")
        )
        second.terminate()
        assert second.wait(20) == 0
        read = [x for x in iter(lambda: bus.receive(1), None) if x]
    ids = list(dict.fromkeys(x.message_id for x in read))
    assert ids == [letter.message_id for run in runs for letter in ledger.letters_of(run)]
    assert len(read) - len(ids) <= 1  # the one that was confirmed and not yet marked


def test_a_second_relay_sends_nothing_until_the_first_is_gone(
    broker: Broker, ledger: Ledger, topic: str, tmp_path: Path, relay: subprocess.Popen[bytes]
) -> None:
    log = tmp_path / "relay.log"
    with Subscription(broker.url, EXCHANGE, [f"{topic}.#"]) as bus:
        wait_for(
            "the first relay to have its turn", lambda: "ledger.db.relay" in {x.name for x in tmp_path.iterdir()}, 60
        )
        second = start(tmp_path, broker.url)
        wait_for("the second one to wait", lambda: "another relay works for this ledger" in tail_of(log), 60)
        write_run(ledger, topic, "1")
        assert len([bus.receive(30) for _ in range(6)]) == 6
        relay.terminate()
        relay.wait(20)
        write_run(ledger, topic, "2")
        later = [bus.receive(30) for _ in range(6)]
        assert [x.body["rev"] for x in later if x] == ["2" * 40] * 6
        assert bus.receive(1) is None
    second.terminate()
    assert second.wait(20) == 0
    assert "it is our turn" in tail_of(log)


@pytest.mark.parametrize(
    ("url", "exchange", "words"),
    [
        ("amqp://x:y@127.0.0.1:1/%2F", EXCHANGE, "cannot be reached"),
        ("", "no.such.exchange", "no exchange no.such.exchange"),
    ],
    ids=["broker away", "exchange missing"],
)
def test_what_cannot_be_sent_stays_and_the_log_says_why(
    broker: Broker, ledger: Ledger, topic: str, tmp_path: Path, url: str, exchange: str, words: str
) -> None:
    write_run(ledger, topic, "1")
    process = start(tmp_path, url or broker.url, exchange)
    try:
        wait_for("a try to be noted", lambda: ledger.unsent()[0].tries > 0, 60)
    finally:
        process.terminate()
        process.wait(20)
    assert len(ledger.unsent()) == 6
    assert words in (ledger.unsent()[0].error or "")
    assert "stays in the outbox" in (tmp_path / "relay.log").read_text()
