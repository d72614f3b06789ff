"""RabbitMQ as a node of the lab's own, and what a crash of it does to those who talk to it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from distgate.bus.amqp import Publisher, Subscription
from distgate.errors import InfrastructureError
from distgate.waiting import Deadline, wait_for
from lab import teardown
from lab.servers import rabbitmq, supervisor
from lab.servers.ports import is_free
from lab.servers.rabbitmq import EXCHANGE, Broker
from lab.servers.service import last_start, save_service

TOPIC = "test.crash"
SOON = 90.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    teardown.down(tmp_path, print)


@pytest.fixture
def own_broker(state: Path) -> Broker:
    """A broker of this test alone, which may be killed."""
    broker = rabbitmq.prepare(state / "rabbitmq")
    for one in broker.services():
        save_service(state, one)
    supervisor.start_supervisor(state)
    supervisor.wait_healthy(state, ["rabbitmq"], Deadline(SOON))
    return broker


def test_a_broker_listens_on_loopback_only_and_leaves_no_port_behind(state: Path, own_broker: Broker) -> None:
    ports = {own_broker.port, own_broker.distribution_port, own_broker.epmd_port}
    assert not any(is_free(port) for port in ports)
    assert [address for address in listening(ports) if not address.is_loopback] == []
    teardown.down(state, print)
    assert all(is_free(port) for port in ports)
    assert teardown.leftovers(state) == []


def test_a_killed_broker_comes_back_and_no_confirmed_message_is_lost(state: Path, own_broker: Broker) -> None:
    Subscription(own_broker.url, EXCHANGE, [TOPIC], queue="reader").close()
    with Publisher(own_broker.url, EXCHANGE) as publisher:
        publisher.publish_plain(TOPIC, {"n": 1})
        before = last_start(state, "rabbitmq")
        assert supervisor.kill(state, "rabbitmq", signal.SIGKILL)
        wait_for("the message to be confirmed", lambda: published(publisher, {"n": 2}), SOON)
    with Subscription(own_broker.url, EXCHANGE, [TOPIC], queue="reader") as bus:
        seen = [bus.receive(20), bus.receive(20)]
    assert [one.body["n"] for one in seen if one] == [1, 2]
    after = last_start(state, "rabbitmq")
    assert before
    assert after
    assert (before.restarts, after.restarts) == (0, 1)
    assert last_start(state, "rabbitmq-epmd") is not None


def test_a_reader_finds_the_broker_again_by_itself(state: Path, own_broker: Broker) -> None:
    with Subscription(own_broker.url, EXCHANGE, [TOPIC], queue="reader") as bus:
        supervisor.restart(state, "rabbitmq", SOON)
        with Publisher(own_broker.url, EXCHANGE) as publisher:
            publisher.publish_plain(TOPIC, {"n": 1})
        delivery = bus.receive(SOON)
    assert delivery
    assert delivery.body == {"n": 1}


def test_a_broker_is_the_same_when_it_is_prepared_again(tmp_path: Path) -> None:
    first = rabbitmq.prepare(tmp_path)
    assert rabbitmq.prepare(tmp_path) == first
    assert (tmp_path / "rabbitmq.conf").stat().st_mode & 0o077 == 0


def published(publisher: Publisher, body: dict[str, int]) -> bool:
    try:
        publisher.publish_plain(TOPIC, body)
    except InfrastructureError:
        return False
    return True


def listening(ports: set[int]) -> list[IPv4Address | IPv6Address]:
    """The addresses on which anybody listens at ``ports``, from the kernel's own tables."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            address, _, port = line.split()[1].partition(":")
            if line.split()[3] == "0A" and int(port, 16) in ports:
                # Words of four bytes in this machine's order.
                words = [bytes.fromhex(address[i : i + 8])[::-1] for i in range(0, len(address), 8)]
                found.append(ip_address(b"".join(words)))
    return found
