"""The relay against a real broker: in order, confirmed, and with an ID that does not change."""

import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.bus.announce import Announcer
from distgate.bus.queues import Subscription
from distgate.changes.change import Change
from distgate.files import tail_of
from distgate.ledger.ledger import Ledger
from distgate.process import environment
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.rabbitmq import EXCHANGE, Broker

pytestmark = pytest.mark.lab
STATES = [("package", "queued"), ("package", "running"), ("package", "complete"), ("image", "queued")]


@pytest.fixture
def topic() -> str:
    """A topic root of the test's own: the broker is shared."""
    return f"org.t{uuid.uuid4().hex[:8]}.stage"


def write_run(ledger: Ledger, topic: str, run: str) -> None:
    change = Change(namespace="rpms", repo=f"pkg{run}", rev=run * 40, branch="f41", username="jane")
    announcer = Announcer(ledger, Settings(main_topic=topic))
    ledger.claim(change, run, "http://ui/run")
    for suffix, state in STATES:
        announcer.stage(run, suffix, state)
    announcer.close(run)


@dataclass
class Relays:
    """Starts relays for a ledger; whatever runs at the end is asked to end, and does."""

    ledger_url: str
    broker_url: str
    scratch: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *, url: str = "", exchange: str = EXCHANGE) -> subprocess.Popen[bytes]:
        own = {
            "DISTGATE_LEDGER_URL": self.ledger_url,
            "DISTGATE_AMQP_URL": url or self.broker_url,
            "DISTGATE_EXCHANGE": exchange,
        }
        with self._log(len(self.running)).open("wb") as log:
            words = [sys.executable, "-m", "services.relay"]
            self.running.append(subprocess.Popen(words, env=environment(own), stdout=log, stderr=log))
        return self.running[-1]

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait(20)

    def said(self, number: int = 0) -> str:
        """What the relay that was started as the ``number``-th said."""
        return tail_of(self._log(number), 100_000)

    def end(self) -> None:
        for process in self.running:
            if process.returncode is None:
                process.terminate()
                assert process.wait(20) == 0

    def _log(self, number: int) -> Path:
        return self.scratch / f"relay-{number}.log"


@pytest.fixture
def relays(ledger_url: str, broker: Broker, tmp_path: Path) -> Iterator[Relays]:
    made = Relays(ledger_url, broker.url, tmp_path)
    yield made
    made.end()


def test_messages_arrive_in_order_with_the_ids_of_the_outbox(
    broker: Broker, ledger: Ledger, topic: str, relays: Relays
) -> None:
    relays.start()
    with Subscription(broker.url, EXCHANGE, [f"{topic}.#"]) as bus:
        for run in "12":
            write_run(ledger, topic, run)
        read = [bus.receive(30) for _ in range(12)]
    letters = [letter for run in "12" for letter in ledger.messages_of(run)]
    assert [(x.topic, x.message_id, x.body) for x in read if x] == [(x.topic, x.message_id, x.body) for x in letters]
    assert {x.headers["fedora_messaging_schema"] for x in read if x} == {"distgate.allpackages.StageV1"}
    wait_for("all to be marked as sent", lambda: not ledger.unsent(), 10)


RUNS = "123456789abcdef"


def check_all_said(ledger: Ledger, bus: Subscription) -> None:
    """Every message was sent, in order, and at most the one that was confirmed and not yet marked a second time."""
    read = [x for x in iter(lambda: bus.receive(1), None) if x]
    ids = list(dict.fromkeys(x.message_id for x in read))
    assert ids == [letter.message_id for run in RUNS for letter in ledger.messages_of(run)]
    assert len(read) - len(ids) <= 1


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
def test_a_relay_that_was_killed_goes_on_where_the_broker_confirmed(
    broker: Broker, ledger: Ledger, topic: str, relays: Relays
) -> None:
    with Subscription(broker.url, EXCHANGE, [f"{topic}.#"], queue=f"q{topic}") as bus:
        for run in RUNS:
            write_run(ledger, topic, run)
        first = relays.start()
        wait_for("some messages to be sent", lambda: ledger.counts()["sent"] > 5, 60, interval=0.01)
        relays.kill(first)
        relays.start()
        wait_for("the rest to be sent", lambda: not ledger.unsent(), 60, evidence=lambda: relays.said(1))
        check_all_said(ledger, bus)


def test_a_second_relay_waits_and_goes_on_in_the_place_of_the_first_when_that_is_killed(
    broker: Broker, ledger: Ledger, topic: str, relays: Relays
) -> None:
    with Subscription(broker.url, EXCHANGE, [f"{topic}.#"], queue=f"q{topic}") as bus:
        first = relays.start()
        write_run(ledger, topic, RUNS[0])
        wait_for("the first to work", lambda: not ledger.unsent(), 60, evidence=relays.said)
        relays.start()
        waits = "another relay works for this ledger (relay on "
        wait_for("the second to wait", lambda: waits in relays.said(1), 60, evidence=lambda: relays.said(1))
        for run in RUNS[1:]:
            write_run(ledger, topic, run)
        wait_for("some messages to be sent", lambda: ledger.counts()["sent"] > 10, 60, interval=0.01)
        relays.kill(first)
        wait_for("the rest to be sent", lambda: not ledger.unsent(), 60, evidence=lambda: relays.said(1))
        assert "this relay is the leader" in relays.said(1)
        check_all_said(ledger, bus)


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("url", "exchange", "words"),
    [
        ("amqp://x:y@127.0.0.1:1/%2F", EXCHANGE, "cannot be reached"),
        ("", "no.such.exchange", "no exchange no.such.exchange"),
    ],
    ids=["broker away", "exchange missing"],
)
def test_what_cannot_be_sent_stays_and_the_log_says_why(
    ledger: Ledger, topic: str, relays: Relays, url: str, exchange: str, words: str
) -> None:
    write_run(ledger, topic, "1")
    relays.start(url=url, exchange=exchange)
    wait_for("a try to be noted", lambda: ledger.unsent()[0].tries > 0, 60)
    relays.end()
    assert len(ledger.unsent()) == 6
    assert words in (ledger.unsent()[0].error or "")
    assert "stays in the outbox" in relays.said()
