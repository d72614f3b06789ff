"""The message bus: fedora-messaging to publish and to consume, set up in code and never from /etc.

Nothing here depends on process-wide state of fedora-messaging but its few options: every Publisher and every
consumer owns its connection, so that a test can talk to several brokers. What needs no fedora-messaging is in
amqp_queues and can be had here as well.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NoReturn

import crochet
import pika
import pika.exceptions
from fedora_messaging import config as options
from fedora_messaging import exceptions as refused
from fedora_messaging.message import Message, get_message
from fedora_messaging.twisted import consumer as reading
from fedora_messaging.twisted.service import FedoraMessagingServiceV2
from jsonschema import ValidationError  # type: ignore[import-untyped]
from tenacity import (
    before_sleep_log,
    retry,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_any,
    stop_when_event_set,
    wait_exponential,
)
from twisted.internet import defer

from distgate.bus.queues import (
    Delivery,
    Subscription,
    blocking_channel,
    check_exchange,
    consumers_of,
    declare_queue,
    follow,
    messages_in,
)
from distgate.bus.tls import fedora_messaging_tls
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.text import printable

__all__ = [
    "Delivery",
    "Publisher",
    "Subscription",
    "blocking_channel",
    "check_exchange",
    "configure",
    "consume",
    "consumers_of",
    "declare_queue",
    "follow",
    "messages_in",
    "publish",
]

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 10.0
#: fedora-messaging waits up to an hour between attempts to reconnect; our broker is missed sooner than that.
LONGEST_RECONNECT = 5
PREFETCH = 4
#: RabbitMQ takes a message away from a consumer that holds it for 30 minutes: give up before.
HANDLE_SECONDS = 20 * 60.0
LOOK_SECONDS = 0.25
#: Characters of an unreadable message's reason in the log.
REASON_LENGTH = 200

Callback = Callable[[Message], None]


class Publisher:
    """Publishes messages and returns once the broker has confirmed them.

    Connects at the first message, and again after a failure, having looked whether the exchange exists. Safe to
    use from several threads, not after a fork. To be closed, or used as a context manager.
    """

    def __init__(self, url: str, exchange: str, *, app: str = "distgate", timeout: float = PUBLISH_SECONDS) -> None:
        self.url, self.exchange, self.timeout = url, exchange, timeout
        self._service: FedoraMessagingServiceV2 | None = None
        self._on_their_way: dict[str, Any] = {}
        configure(app)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Return when the broker answers and has the exchange; raises what ``publish`` raises when not."""
        check_exchange(self.url, self.exchange)

    def publish(self, message: Message) -> None:
        """Send ``message`` and wait for the broker's confirmation, at most ``timeout`` seconds.

        Raises InfrastructureError when the broker cannot be reached or does not confirm (the message may arrive all
        the same: repeat it with the same id; one that the broker holds back meanwhile is not sent a second time),
        ConfigurationError when the topic or the exchange is not ours to use, DistgateError when the message does
        not fit its own schema: repeating it will not help.
        """
        sending = self._on_their_way.get(message.id) or self._send(message)
        try:
            sending.wait(self.timeout)
        except crochet.TimeoutError:
            self._explain_silence(message)
        except Exception as error:  # noqa: BLE001 - raised again by _explain, as what it means to the caller
            # A lost or refused connection is given up: fedora-messaging would try on in the background, for ever.
            self.close()
            _explain(error, message)
        self._on_their_way.pop(message.id, None)

    def publish_plain(self, topic: str, body: Mapping[str, Any]) -> str:
        """Send a message without a schema of its own and return its id; raises what ``publish`` raises."""
        message = Message(topic=topic, body=dict(body))
        self.publish(message)
        return message.id

    def close(self) -> None:
        """Leave the broker; a later ``publish`` connects again."""
        service, self._service = self._service, None
        sending, self._on_their_way = self._on_their_way, {}
        for delivery in sending.values():
            delivery.cancel()
        if service:
            _stop(service)

    def _send(self, message: Message) -> Any:
        service = self._service or self._open()
        sending = crochet.run_in_reactor(_send)(service, message, self.exchange)
        self._on_their_way[message.id] = sending
        return sending

    def _explain_silence(self, message: Message) -> NoReturn:
        """A broker with an alarm holds messages back unread, and takes them when it is over: sent again, each
        would come once more for every try. Nothing is waited for where nothing can come."""
        try:
            self.check()
        except DistgateError:
            self.close()
            raise
        raise InfrastructureError(
            f"the broker did not confirm message {message.id} ({message.topic}) in time",
            hint="it answers, but takes no messages: a memory or disk alarm? rabbitmqctl status shows it",
        )

    def _open(self) -> FedoraMessagingServiceV2:
        check_exchange(self.url, self.exchange)
        self._service = _start(self.url)
        return self._service


def publish(topic: str, body: Mapping[str, Any], *, url: str, exchange: str) -> str:
    """Publish one message without a schema of its own, over a connection of its own, and return its id."""
    with Publisher(url, exchange) as publisher:
        return publisher.publish_plain(topic, body)


def consume(
    callback: Callback,
    *,
    url: str,
    exchange: str,
    queue: str,
    topics: Sequence[str],
    app: str = "distgate",
    patience: float = HANDLE_SECONDS,
    until: threading.Event | None = None,
) -> None:
    """Call ``callback`` for every message of ``queue``, one at a time, in a thread of its own, until it halts.

    A message is acknowledged when the callback returns. InfrastructureError: the same message is tried again
    with growing pauses for ``patience`` seconds, then it is given back to the queue and the error is raised
    here. Any other exception: the message goes to the dead-letter queue ``<queue>.dead`` and the next one is
    read, as does a message that is no JSON or does not fit its schema. A callback that raises
    fedora_messaging's HaltConsumer ends the consumer in order, and so does ``until`` once it is set: the message
    in hand is finished, or given back if it is being tried again, and this function returns. Connections are
    made again by themselves; then messages may come twice. Raises ConfigurationError when the queue is taken away.
    """
    configure(app)
    settings = declare_queue(url, exchange, queue, topics)
    bindings = [{"queue": queue, "exchange": exchange, "routing_keys": list(topics)}]
    stop = until or threading.Event()
    last: list[DistgateError] = []
    judged = _judged(callback, patience, stop, last)
    service = _start(url)
    try:
        _until(stop, crochet.run_in_reactor(_consuming)(service, judged, bindings, settings))
    except refused.HaltConsumer:
        if last and not stop.is_set():
            raise last[0] from None
    except (refused.ConsumerCanceled, refused.PermissionException) as error:
        raise ConfigurationError(f"the broker ended the consumer of {queue}: {error or 'queue deleted'}") from error
    finally:
        _stop(service)


def configure(app: str) -> None:
    """Set fedora-messaging's process-wide options in code: no file in /etc takes part."""
    options.conf.loaded = True
    properties = {**options.DEFAULTS["client_properties"], "app": app}
    handlers = {
        "client_properties": properties,
        "qos": {"prefetch_size": 0, "prefetch_count": PREFETCH},
        "tls": fedora_messaging_tls(),
    }
    options.conf.update({**options.DEFAULTS, **handlers})
    # It writes the whole body of a message that it dislikes, a patch of megabytes included; _read says it shorter.
    logging.getLogger("fedora_messaging.message").setLevel(logging.CRITICAL)
    reading.get_message = _read  # type: ignore[attr-defined]  # no way in but this: their consumer calls it by name


def _read(routing_key: str, properties: pika.BasicProperties, body: bytes) -> Message:
    """fedora-messaging's get_message, but for what else it raises (a body nested too deeply, an encoding that does
    not exist, headers of the wrong type): that would end the consumer, and the next one, and so on."""
    try:
        return get_message(routing_key, properties, body)
    except Exception as error:
        reason = printable(str(error), newlines=False)[:REASON_LENGTH]
        log.warning("message %s (%s) is unreadable: %s", properties.message_id, routing_key, reason)
        raise refused.ValidationError(error) from error


def _judged(callback: Callback, patience: float, stop: threading.Event, last: list[DistgateError]) -> Callback:
    attempt = retry(
        retry=retry_if_exception_type(InfrastructureError),
        wait=wait_exponential(multiplier=1, max=30),
        stop=stop_any(stop_after_delay(patience), stop_when_event_set(stop)),
        sleep=sleep_using_event(stop),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )(callback)

    def handle(message: Message) -> None:
        try:
            attempt(message)
        except (refused.HaltConsumer, refused.Drop):
            raise
        except InfrastructureError as error:
            last.append(error)
            raise refused.HaltConsumer(1, reason=str(error), requeue=True) from error
        except Exception as error:
            # The ladder's last rung: whatever is wrong with one message must not stop the ones behind it.
            log.exception("message %s (%s) goes to the dead letters", message.id, message.topic)
            raise refused.Drop from error

    return handle


@defer.inlineCallbacks
def _consuming(
    service: FedoraMessagingServiceV2, callback: Callback, bindings: Any, queues: Any
) -> Generator[Any, Any, None]:
    consumers = yield service.factory.consume(callback, bindings, queues)
    yield consumers[0].result


@defer.inlineCallbacks
def _send(service: FedoraMessagingServiceV2, message: Message, exchange: str) -> Generator[Any, Any, None]:
    # We cancel what timed out, and no caller waits for it any more.
    try:
        yield service.factory.publish(message, exchange)
    except defer.CancelledError:
        log.debug("gave up publishing %s", message.id)


def _start(url: str) -> FedoraMessagingServiceV2:
    crochet.setup()
    service = FedoraMessagingServiceV2(url)
    service.factory.maxDelay = LONGEST_RECONNECT
    _in_reactor(service.startService, PUBLISH_SECONDS)
    return service


def _stop(service: FedoraMessagingServiceV2) -> None:
    try:
        _in_reactor(service.stopService, PUBLISH_SECONDS)
    except Exception as error:  # noqa: BLE001 - the connection is given up, whatever it says to that
        log.debug("the connection did not close in order: %r", error)


def _until(stop: threading.Event, result: Any) -> None:
    """Wait for ``result``, however long, or until the end is asked for."""
    while not stop.is_set():
        try:
            result.wait(LOOK_SECONDS)
        except crochet.TimeoutError:
            continue
        return


def _in_reactor(call: Callable[[], Any], timeout: float) -> Any:
    """Run ``call`` in Twisted's thread and wait for its result; crochet.TimeoutError cancels it."""
    result = crochet.run_in_reactor(call)()
    try:
        return result.wait(timeout)
    except crochet.TimeoutError:
        result.cancel()
        raise


def _explain(error: Exception, message: Message) -> NoReturn:
    what = f"message {message.id} ({message.topic})"
    if isinstance(error, DistgateError):
        raise error
    if isinstance(error, ValidationError):
        raise DistgateError(f"{what} does not fit its schema: {error.message}") from error
    if isinstance(error, refused.PublishForbidden):
        raise ConfigurationError(
            f"the broker forbids {what}: {error}", hint="the user needs the right to write this topic"
        ) from error
    if isinstance(error, refused.BaseException | pika.exceptions.AMQPError | OSError):
        raise InfrastructureError(f"{what} was not published: {error!r}") from error
    raise error
