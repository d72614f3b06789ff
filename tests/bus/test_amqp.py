"""The message bus against a real RabbitMQ: publish, consume, dead letters, follow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pika
import pytest
from fedora_messaging.exceptions import HaltConsumer
from fedora_messaging.message import Message

from distgate.bus import amqp
from distgate.bus.amqp import Publisher, Subscription
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.waiting import wait_for
from distgate_messages.allpackages import StageV1
from lab.servers.ports import free_ports
from lab.servers.rabbitmq import EXCHANGE, Broker

SOON = 20.0


@pytest.fixture
def topic() -> str:
    """A topic of this test alone: the broker serves them all."""
    return f"test.t{uuid4().hex}"


def send(broker: Broker, topic: str, *bodies: dict[str, Any]) -> None:
    with Publisher(broker.url, EXCHANGE) as publisher:
        for body in bodies:
            publisher.publish_plain(topic, body)


def consume(broker: Broker, topic: str, callback: Callable[[Message], None], **more: Any) -> None:
    amqp.consume(callback, url=broker.url, exchange=EXCHANGE, queue=topic, topics=[topic], **more)


def declared(broker: Broker, topic: str) -> None:
    """Let a push find the consumer's queue before the consumer is started."""
    amqp.declare_queue(broker.url, EXCHANGE, topic, [topic])


class Recorder:
    """A callback that remembers what it was given and ends the consumer after ``last`` messages."""

    def __init__(self, last: int, complaint: Callable[[dict[str, Any]], Exception | None] = lambda _: None) -> None:
        self.last, self.complaint = last, complaint
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, message: Message) -> None:
        self.bodies.append(message.body)
        error = self.complaint(message.body)
        if error:
            raise error
        if len(self.bodies) == self.last:
            raise HaltConsumer


def test_a_published_message_is_read_back_with_its_topic_id_and_body(broker: Broker, topic: str) -> None:
    with Subscription(broker.url, EXCHANGE, [topic]) as bus, Publisher(broker.url, EXCHANGE) as publisher:
        message_id = publisher.publish_plain(topic, {"rev": "a" * 40})
        delivery = bus.receive(SOON)
    assert delivery
    assert (delivery.topic, delivery.message_id, delivery.body) == (topic, message_id, {"rev": "a" * 40})
    assert delivery.headers["fedora_messaging_severity"] == 20


def test_messages_arrive_in_the_order_in_which_they_were_published(broker: Broker, topic: str) -> None:
    with Subscription(broker.url, EXCHANGE, [topic]) as bus:
        send(broker, topic, *({"n": n} for n in range(20)))
        seen = [bus.receive(SOON) for _ in range(20)]
    assert [one.body["n"] for one in seen if one] == list(range(20))


def test_an_exchange_that_does_not_exist_is_a_mistake_in_the_configuration_and_said_at_once(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="no exchange no-such") as caught:
        amqp.check_exchange(broker.url, "no-such")
    assert "DISTGATE_EXCHANGE" in caught.value.hint
    with pytest.raises(ConfigurationError, match="no exchange no-such"):
        amqp.publish("topic", {}, url=broker.url, exchange="no-such")


def test_a_wrong_password_is_a_mistake_in_the_configuration(broker: Broker) -> None:
    with pytest.raises(ConfigurationError, match="refuses us"):
        amqp.publish("topic", {}, url=broker.url.replace(broker.password, "wrong"), exchange=EXCHANGE)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "amqp://host:port/"])
def test_what_is_no_amqp_url_is_a_mistake_in_the_configuration(url: str) -> None:
    with pytest.raises(ConfigurationError, match="no AMQP URL"):
        amqp.check_exchange(url, EXCHANGE)


def test_a_broker_that_is_away_is_infrastructure() -> None:
    [port] = free_ports(1)
    with pytest.raises(InfrastructureError, match="cannot be reached"):
        amqp.publish("topic", {}, url=f"amqp://127.0.0.1:{port}/%2F", exchange=EXCHANGE)


def test_a_topic_that_we_may_not_write_is_a_mistake_in_the_configuration(broker: Broker, topic: str) -> None:
    broker.control("add_user", "limited", "secret")
    broker.control("set_permissions", "limited", ".*", ".*", ".*")
    broker.control("set_topic_permissions", "limited", EXCHANGE, "^allowed", ".*")
    url = broker.url.replace(f"distgate:{broker.password}", "limited:secret")
    with Publisher(url, EXCHANGE) as publisher:
        with pytest.raises(ConfigurationError, match="forbids"):
            publisher.publish_plain(topic, {})
        assert publisher.publish_plain("allowed.topic", {})


def test_a_message_that_does_not_fit_its_schema_is_never_sent_and_is_our_bug(broker: Broker) -> None:
    with Publisher(broker.url, EXCHANGE) as publisher, pytest.raises(DistgateError, match="schema") as caught:
        publisher.publish(StageV1(topic="org.centos.prod.ci.pipeline.allpackages.complete", body={"status": 1}))
    assert caught.value.blame == "bug"


def test_a_publisher_serves_several_threads(broker: Broker, topic: str) -> None:
    with Subscription(broker.url, EXCHANGE, [topic]) as bus, Publisher(broker.url, EXCHANGE) as publisher:
        threads = [threading.Thread(target=publisher.publish_plain, args=(topic, {"n": n})) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
        seen = [bus.receive(SOON) for _ in range(8)]
    assert sorted(one.body["n"] for one in seen if one) == list(range(8))


def test_what_the_callback_accepts_is_gone_from_the_queue(broker: Broker, topic: str) -> None:
    declared(broker, topic)
    send(broker, topic, {"n": 1}, {"n": 2})
    recorder = Recorder(last=2)
    consume(broker, topic, recorder)
    assert recorder.bodies == [{"n": 1}, {"n": 2}]
    assert amqp.messages_in(broker.url, topic) == 0
    assert amqp.consumers_of(broker.url, topic) == 0


@pytest.mark.parametrize("error", [ValueError("a bug of ours"), PackageError("not to be read")])
def test_a_message_that_the_callback_chokes_on_becomes_a_dead_letter_and_the_next_is_read(
    broker: Broker, topic: str, error: Exception
) -> None:
    declared(broker, topic)
    send(broker, topic, {"poison": True}, {"n": 2})
    recorder = Recorder(last=2, complaint=lambda body: error if "poison" in body else None)
    consume(broker, topic, recorder)
    assert recorder.bodies == [{"poison": True}, {"n": 2}]
    assert amqp.messages_in(broker.url, f"{topic}.dead") == 1


def test_what_is_no_json_becomes_a_dead_letter_unseen(broker: Broker, topic: str) -> None:
    declared(broker, topic)
    with amqp.blocking_channel(broker.url) as channel:
        for raw in (b"{not json", b"[1]"):
            channel.basic_publish(EXCHANGE, topic, raw, pika.BasicProperties(message_id="x"))
    send(broker, topic, {"n": 1})
    recorder = Recorder(last=1)
    consume(broker, topic, recorder)
    assert recorder.bodies == [{"n": 1}]
    assert amqp.messages_in(broker.url, f"{topic}.dead") == 2


def test_a_message_is_tried_again_while_infrastructure_is_away(broker: Broker, topic: str) -> None:
    declared(broker, topic)
    send(broker, topic, {"n": 1})
    errors: list[Exception] = [InfrastructureError("Prefect is away")]
    recorder = Recorder(last=2, complaint=lambda _: errors.pop() if errors else None)
    consume(broker, topic, recorder)
    assert recorder.bodies == [{"n": 1}, {"n": 1}]
    assert amqp.messages_in(broker.url, topic) == 0


def test_when_infrastructure_stays_away_the_message_stays_in_the_queue_and_the_consumer_says_why(
    broker: Broker, topic: str
) -> None:
    declared(broker, topic)
    send(broker, topic, {"n": 1})
    away = Recorder(last=9, complaint=lambda _: InfrastructureError("Prefect is away"))
    with pytest.raises(InfrastructureError, match="Prefect is away"):
        consume(broker, topic, away, patience=0.1)
    wait_for("the message to be back", lambda: amqp.messages_in(broker.url, topic) == 1, SOON)


def test_a_consumer_that_is_asked_to_stop_gives_the_message_in_hand_back(broker: Broker, topic: str) -> None:
    declared(broker, topic)
    send(broker, topic, {"n": 1})
    stop = threading.Event()

    def away(_: Message) -> None:
        stop.set()
        raise InfrastructureError("Prefect is away")

    consume(broker, topic, away, until=stop)
    wait_for("the message to be back", lambda: amqp.messages_in(broker.url, topic) == 1, SOON)


def test_a_queue_that_exists_with_other_settings_is_refused_with_a_hint(broker: Broker, topic: str) -> None:
    with amqp.blocking_channel(broker.url) as channel:
        channel.queue_declare(topic, durable=True)
    with pytest.raises(ConfigurationError, match=f"refuses the queue {topic}") as caught:
        declared(broker, topic)
    assert "delete it" in caught.value.hint


def test_a_queue_that_is_deleted_ends_its_consumer_with_an_error(broker: Broker, topic: str) -> None:
    caught: list[BaseException] = []

    def run() -> None:
        try:
            consume(broker, topic, Recorder(last=9))
        except DistgateError as error:
            caught.append(error)

    declared(broker, topic)
    thread = threading.Thread(target=run)
    thread.start()
    wait_for("the consumer", lambda: amqp.consumers_of(broker.url, topic) == 1, SOON)
    with amqp.blocking_channel(broker.url) as channel:
        channel.queue_delete(topic)
    thread.join(SOON)
    assert isinstance(caught[0], ConfigurationError)


def test_a_named_queue_keeps_what_comes_while_nobody_reads(broker: Broker, topic: str) -> None:
    Subscription(broker.url, EXCHANGE, [topic], queue=topic).close()
    send(broker, topic, {"n": 1})
    with Subscription(broker.url, EXCHANGE, [topic], queue=topic) as bus:
        delivery = bus.receive(SOON)
        assert delivery
        assert delivery.body == {"n": 1}
        assert bus.receive(0.1) is None


def test_a_message_that_was_handed_out_is_not_handed_out_again(broker: Broker, topic: str) -> None:
    with Subscription(broker.url, EXCHANGE, [topic], queue=topic) as bus:
        send(broker, topic, {"n": 1}, {"n": 2})
        assert bus.receive(SOON)
    with Subscription(broker.url, EXCHANGE, [topic], queue=topic) as bus:
        delivery = bus.receive(SOON)
    assert delivery
    assert delivery.body == {"n": 2}


def test_following_yields_what_matches_and_ends_when_nothing_comes(broker: Broker, topic: str) -> None:
    seen = amqp.follow(broker.url, EXCHANGE, [f"{topic}.*"], idle=0.5)
    send(broker, f"{topic}.a", {"n": 1})
    send(broker, "test.other", {"n": 2})
    send(broker, f"{topic}.b", {"n": 3})
    assert [(one.topic, one.body) for one in seen] == [(f"{topic}.a", {"n": 1}), (f"{topic}.b", {"n": 3})]


def test_no_file_takes_part(broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('topic_prefix = "somebody.elses"\n')
    monkeypatch.setenv("FEDORA_MESSAGING_CONF", str(tmp_path / "config.toml"))
    with Subscription(broker.url, EXCHANGE, [topic]) as bus:
        send(broker, topic, {"n": 1})
        assert bus.receive(SOON)
