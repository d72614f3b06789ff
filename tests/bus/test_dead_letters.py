"""Dead letters on a real broker: looking takes nothing away, and putting back loses nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import uuid4

import pika
import pytest

from distgate.bus.dead_letters import dead_letters, requeue
from distgate.bus.queues import Subscription, blocking_channel, declare_queue, messages_in
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.waiting import wait_for
from lab.servers.ports import free_ports
from lab.servers.rabbitmq import EXCHANGE, Broker

pytestmark = pytest.mark.lab


@pytest.fixture
def topic() -> str:
    return f"test.t{uuid4().hex}.git.receive"


@pytest.fixture
def queue(broker: Broker, topic: str) -> Iterator[str]:
    """A queue of this test with three dead letters: two with an ID, one without and no JSON at all."""
    name = f"q{uuid4().hex[:8]}"
    declare_queue(broker.url, EXCHANGE, name, [topic])
    with blocking_channel(broker.url) as channel:
        for message_id, body in (("one", b'{"n": 1}'), ("two", b'{"n": 2}'), (None, b"{not json")):
            own = pika.BasicProperties(message_id=message_id, headers={"kept": "yes"}, user_id="distgate")
            channel.basic_publish(EXCHANGE, topic, body, own)
    wait_for("the messages to be there", lambda: messages_in(broker.url, name) == 3, 10)
    refuse_all(broker, name)
    wait_for("the messages to be dead", lambda: messages_in(broker.url, f"{name}.dead") == 3, 10)
    yield name
    with blocking_channel(broker.url) as channel:
        for one in (name, f"{name}.dead"):
            channel.queue_delete(one)


def refuse_all(broker: Broker, queue: str) -> None:
    with blocking_channel(broker.url) as channel:
        while (got := channel.basic_get(queue))[0]:
            channel.basic_nack(got[0].delivery_tag, requeue=False)


def test_looking_takes_nothing_away_and_changes_no_order(broker: Broker, queue: str, topic: str) -> None:
    looks = [list(dead_letters(broker.url, queue)) for _ in range(3)]
    assert looks[0] == looks[1] == looks[2]
    first, second, third = looks[0]
    assert (first.message_id, first.topic, first.raw) == ("one", topic, b'{"n": 1}')
    assert second.message_id == "two"
    assert (third.raw, third.message_id.partition(":")[0]) == (b"{not json", "sha256")
    assert all(letter.died_at for letter in looks[0])
    wait_for("all to be back", lambda: messages_in(broker.url, f"{queue}.dead") == 3, 10)


def test_a_look_that_is_broken_off_takes_nothing_away(broker: Broker, queue: str) -> None:
    letters = dead_letters(broker.url, queue)
    next(letters)
    letters.close()  # type: ignore[attr-defined]
    wait_for("all to be back", lambda: messages_in(broker.url, f"{queue}.dead") == 3, 10)


def test_what_is_put_back_comes_as_it_first_came_and_to_nobody_else(broker: Broker, queue: str, topic: str) -> None:
    with Subscription(broker.url, EXCHANGE, [topic]) as others:
        assert requeue(broker.url, queue, ["two"]) == ["two"]
        assert others.receive(0.5) is None
    with blocking_channel(broker.url) as channel:
        frame, properties, raw = channel.basic_get(queue, auto_ack=True)
    assert (frame.routing_key, properties.message_id, json.loads(raw)) == (topic, "two", {"n": 2})
    assert properties.headers["kept"] == "yes"
    left = [letter.message_id for letter in dead_letters(broker.url, queue)]
    assert (left[0], len(left)) == ("one", 2)


def test_all_are_put_back_in_their_order_and_may_die_again(broker: Broker, queue: str) -> None:
    before = [letter.message_id for letter in dead_letters(broker.url, queue)]
    assert requeue(broker.url, queue) == before
    assert messages_in(broker.url, f"{queue}.dead") == 0
    assert messages_in(broker.url, queue) == 3
    refuse_all(broker, queue)
    wait_for("the messages to be dead", lambda: messages_in(broker.url, f"{queue}.dead") == 3, 10)
    assert [letter.message_id for letter in dead_letters(broker.url, queue)] == before


def test_a_queue_that_does_not_exist_and_a_broker_that_is_away_are_told_apart(broker: Broker) -> None:
    for use in (lambda url: list(dead_letters(url, "nosuch")), lambda url: requeue(url, "nosuch")):
        with pytest.raises(ConfigurationError, match="the dead letters of nosuch"):
            use(broker.url)
        [port] = free_ports(1)
        with pytest.raises(InfrastructureError, match="cannot be reached"):
            use(f"amqp://127.0.0.1:{port}/%2F")
