"""Plain AMQP, without fedora-messaging's ways: look at the broker, declare queues, read them message by message."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import pika
import pika.exceptions

from distgate.bus.tls import secure
from distgate.errors import ConfigurationError, InfrastructureError

log = logging.getLogger(__name__)

# pika logs a refused connection seven times, as errors with a traceback; our exceptions say it once.
logging.getLogger("pika").setLevel(logging.CRITICAL)

ANSWER_SECONDS = 10
#: A named queue that is not read fills up: the broker removes it after this many seconds without a reader.
ABANDONED_AFTER = 3600
PAUSE = 0.5


@dataclass(frozen=True)
class Delivery:
    """A message as it was read from the broker; a body that is no JSON object is there as ``{"": text}``."""

    topic: str
    message_id: str
    headers: dict[str, Any]
    body: dict[str, Any]


@contextmanager
def blocking_channel(url: str) -> Iterator[Any]:
    """A pika channel for a few calls; the connection is closed at the end.

    Raises InfrastructureError when the broker cannot be reached, ConfigurationError when it refuses us or when
    the URL is none.
    """
    connection = _connect(url)
    try:
        yield connection.channel()
    finally:
        _hang_up(connection)


def check_exchange(url: str, exchange: str) -> None:
    """Return when ``exchange`` exists; raises ConfigurationError when it does not.

    To be asked before publishing: to an exchange that does not exist, fedora-messaging repeats itself for ever.
    """
    with blocking_channel(url) as channel:
        try:
            channel.exchange_declare(exchange, passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            raise _no_exchange(exchange, error) from error


def consumers_of(url: str, queue: str) -> int:
    """How many consumers ``queue`` has; raises ConfigurationError when there is no such queue."""
    return int(_look_at(url, queue).consumer_count)


def messages_in(url: str, queue: str) -> int:
    """How many messages wait in ``queue``; raises ConfigurationError when there is no such queue."""
    return int(_look_at(url, queue).message_count)


def declare_queue(url: str, exchange: str, queue: str, topics: Sequence[str]) -> dict[str, Any]:
    """Make the durable ``queue``, bound to ``topics``, and behind it ``<queue>.dead`` for what it refuses.

    Returns the settings that fedora-messaging needs to declare the same queue again after a reconnection. Raises
    ConfigurationError when the broker has the queue with other settings, or not the exchange.
    """
    dead = f"{queue}.dead"
    arguments = {"x-dead-letter-exchange": dead}
    with blocking_channel(url) as channel:
        try:
            channel.exchange_declare(dead, exchange_type="fanout", durable=True)
            channel.queue_declare(dead, durable=True)
            channel.queue_bind(dead, dead)
            channel.queue_declare(queue, durable=True, arguments=arguments)
            for topic in topics:
                channel.queue_bind(queue, exchange, topic)
        except pika.exceptions.ChannelClosedByBroker as error:
            raise ConfigurationError(
                f"the broker refuses the queue {queue} on {exchange}: {error.reply_text}",
                hint="a queue keeps the settings it was first declared with: delete it or name another",
            ) from error
    return {queue: {"durable": True, "auto_delete": False, "exclusive": False, "arguments": arguments}}


class Subscription:
    """A queue bound to an exchange, read message by message; from the moment it is made nothing is missed.

    With ``queue`` the queue is durable and keeps what arrives while we or the broker are away; without, it
    lives as long as our connection. A lost connection is made again. For one thread.
    """

    def __init__(self, url: str, exchange: str, topics: Sequence[str], queue: str = "") -> None:
        self.url, self.exchange, self.topics, self.queue = url, exchange, tuple(topics), queue
        self._connection, self._channel = self._open()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def receive(self, timeout: float) -> Delivery | None:
        """The next message, or None after about ``timeout`` seconds without one, or with the broker away."""
        end = time.monotonic() + timeout
        while True:
            remaining = end - time.monotonic()
            try:
                return self._receive(max(0.0, remaining))
            except pika.exceptions.AMQPError as error:
                log.warning("the broker is gone (%r); connecting again", error)
                if not self._reopen(end):
                    return None

    def close(self) -> None:
        """Leave the broker; a durable queue stays until ABANDONED_AFTER."""
        _hang_up(self._connection)

    def _receive(self, timeout: float) -> Delivery | None:
        frames = self._channel.consume(self._name, inactivity_timeout=timeout or 0.01)
        frame, properties, raw = next(frames)
        if frame is None:
            return None
        # Before we hand it out: a reader that stops after a message must not find it again the next time.
        self._channel.basic_ack(frame.delivery_tag)
        return Delivery(frame.routing_key, properties.message_id or "", dict(properties.headers or {}), _decoded(raw))

    def _open(self) -> tuple[pika.BlockingConnection, Any]:
        connection = _connect(self.url)
        channel = connection.channel()
        expiry = {"x-expires": ABANDONED_AFTER * 1000}
        try:
            declared = channel.queue_declare(
                self.queue,
                durable=bool(self.queue),
                exclusive=not self.queue,
                arguments=expiry if self.queue else None,
            )
            self._name = declared.method.queue
            for topic in self.topics:
                channel.queue_bind(self._name, self.exchange, topic)
        except pika.exceptions.ChannelClosedByBroker as error:
            _hang_up(connection)
            raise _no_exchange(self.exchange, error) from error
        # One by one: what was read ahead would be lost with us on an exclusive queue, or come late on another.
        channel.basic_qos(prefetch_count=1)
        return connection, channel

    def _reopen(self, end: float) -> bool:
        while time.monotonic() < end:
            try:
                self._connection, self._channel = self._open()
            except InfrastructureError:
                time.sleep(PAUSE)
            else:
                return True
        return False


def follow(
    url: str, exchange: str, topics: Sequence[str], *, queue: str = "", idle: float | None = None
) -> Iterator[Delivery]:
    """Every message on ``topics`` as it is read from a queue bound to ``exchange``, bound before this returns.

    Ends after ``idle`` seconds without a message, or never. ``queue`` names a durable queue, in which messages
    wait while the broker or we restart.
    """
    subscription = Subscription(url, exchange, topics, queue)
    return _followed(subscription, idle)


def _followed(subscription: Subscription, idle: float | None) -> Iterator[Delivery]:
    with subscription:
        while True:
            delivery = subscription.receive(60.0 if idle is None else idle)
            if delivery:
                yield delivery
            elif idle is not None:
                return


def _connect(url: str) -> pika.BlockingConnection:
    try:
        return pika.BlockingConnection(_parameters(url))
    except (pika.exceptions.ProbableAuthenticationError, pika.exceptions.ProbableAccessDeniedError) as error:
        raise ConfigurationError(
            f"the broker refuses us: {error}", hint="DISTGATE_AMQP_URL holds user and host"
        ) from error
    except (pika.exceptions.AMQPError, OSError) as error:
        raise InfrastructureError(f"the broker cannot be reached: {error!r}", hint="is RabbitMQ running?") from error


def _hang_up(connection: pika.BlockingConnection) -> None:
    try:
        connection.close()
    except pika.exceptions.AMQPError as error:
        log.debug("the connection was gone already: %r", error)


def _parameters(url: str) -> pika.URLParameters:
    hint = "amqp://user:password@host:port/%2F"
    if not url.startswith(("amqp://", "amqps://")):  # pika takes any scheme for amqp
        raise ConfigurationError("this is no AMQP URL: it begins neither with amqp:// nor with amqps://", hint=hint)
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError, KeyError) as error:
        # Not what it says: after a # or / in a password it quotes the rest of that as a port.
        raise ConfigurationError(
            "this is no AMQP URL: its port or an option is wrong, or a character of the password is not "
            "percent-encoded",
            hint=hint,
        ) from error
    secure(parameters)
    parameters.socket_timeout = parameters.blocked_connection_timeout = ANSWER_SECONDS
    return parameters


def _look_at(url: str, queue: str) -> Any:
    with blocking_channel(url) as channel:
        try:
            return channel.queue_declare(queue, passive=True).method
        except pika.exceptions.ChannelClosedByBroker as error:
            raise ConfigurationError(f"the broker has no queue {queue}: {error.reply_text}") from error


def _no_exchange(exchange: str, closed: pika.exceptions.ChannelClosedByBroker) -> ConfigurationError:
    return ConfigurationError(
        f"the broker has no exchange {exchange} for us: {closed.reply_text}",
        hint="DISTGATE_EXCHANGE names the exchange, DISTGATE_AMQP_URL the broker and its virtual host",
    )


def _decoded(raw: bytes) -> dict[str, Any]:
    text = raw.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    return body if isinstance(body, dict) else {"": text}
