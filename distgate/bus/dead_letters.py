"""The dead letters of a queue: looked at without taking one away, and put back without losing one."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pika
import pika.exceptions

from distgate.bus.queues import blocking_channel
from distgate.errors import ConfigurationError, InfrastructureError


@dataclass(frozen=True)
class DeadLetter:
    """A message that a queue refused: its topic, its body as it came, and when it died, as far as the broker says.

    ``message_id`` is made from the body when the message has none of its own.
    """

    message_id: str
    topic: str
    raw: bytes = field(repr=False)
    died_at: datetime | None = None


def dead_letters(url: str, queue: str) -> Iterator[DeadLetter]:
    """Every dead letter of ``queue``, oldest first. All stay where they are, in their order.

    While they are looked at they are hidden from others. Raises ConfigurationError when there is no such queue.
    """
    with _reading(url, queue) as channel:
        for _tag, properties, letter in _letters(channel, queue):
            del properties
            yield letter


def requeue(url: str, queue: str, ids: Collection[str] | None = None) -> list[str]:
    """Put dead letters back into ``queue`` as they first came, all or those with one of ``ids``; returns their IDs.

    Each is taken from the dead letters after the broker confirmed it in the queue: whoever is killed in between
    leaves it in both. Nobody else on the bus sees it again. Raises ConfigurationError when there is no such queue.
    """
    back: list[str] = []
    with _reading(url, queue) as channel:
        _declare_way_back(channel, queue)
        for tag, properties, letter in _letters(channel, queue):
            if ids is None or letter.message_id in ids:
                _put_back(channel, queue, properties, letter)
                channel.basic_ack(tag)
                back.append(letter.message_id)
    return back


@contextmanager
def _reading(url: str, queue: str) -> Iterator[Any]:
    try:
        # The connection's end gives back what was read and not acknowledged.
        with blocking_channel(url) as channel:
            yield channel
    except pika.exceptions.ChannelClosedByBroker as error:
        raise ConfigurationError(
            f"the dead letters of {queue} cannot be read: {error.reply_text}",
            hint="the intake makes the queue when it starts; DISTGATE_QUEUE names it",
        ) from error
    except (pika.exceptions.AMQPError, OSError) as error:
        raise InfrastructureError(f"the broker went away: {error!r}", hint="try again; nothing is lost") from error


def _letters(channel: Any, queue: str) -> Iterator[tuple[int, pika.BasicProperties, DeadLetter]]:
    dead = f"{queue}.dead"
    # As many as there are now: what is refused again meanwhile is left for the next look.
    for _ in range(channel.queue_declare(dead, passive=True).method.message_count):
        frame, properties, raw = channel.basic_get(dead)
        if frame is None:
            return
        identity = properties.message_id or _made_of(frame.routing_key, raw)
        yield frame.delivery_tag, properties, DeadLetter(identity, frame.routing_key, raw, _death(properties))


def _declare_way_back(channel: Any, queue: str) -> None:
    # By way of the default exchange a message would lose its topic, which is its routing key.
    way = _way_back(queue)
    channel.queue_declare(queue, passive=True)
    channel.exchange_declare(way, exchange_type="fanout", durable=True)
    channel.queue_bind(queue, way)
    channel.confirm_delivery()


def _put_back(channel: Any, queue: str, properties: pika.BasicProperties, letter: DeadLetter) -> None:
    properties.user_id = None  # the broker checks it against the sender, and that is us now
    try:
        channel.basic_publish(_way_back(queue), letter.topic, letter.raw, properties, mandatory=True)
    except (pika.exceptions.UnroutableError, pika.exceptions.NackError) as error:
        raise InfrastructureError(f"the broker did not take {letter.message_id} back: {error!r}") from error


def _way_back(queue: str) -> str:
    return f"{queue}.again"


def _made_of(topic: str, raw: bytes) -> str:
    digest = hashlib.sha256(topic.encode() + b"\0" + raw).hexdigest()
    return f"sha256:{digest[:32]}"


def _death(properties: pika.BasicProperties) -> datetime | None:
    deaths = (properties.headers or {}).get("x-death") or [{}]
    when = deaths[0].get("time") if isinstance(deaths[0], dict) else None
    return when.replace(tzinfo=UTC) if isinstance(when, datetime) else None
