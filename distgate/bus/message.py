"""A message of the outbox as a message of the bus."""

from __future__ import annotations

from fedora_messaging.message import INFO, WARNING, Message

from distgate.ledger.runs import OutboxMessage
from distgate_messages import allpackages, atomic
from distgate_messages.stage import StageMessage


def as_message(outgoing: OutboxMessage) -> Message:
    """The message with the ID of the outbox, so that one that is sent twice is recognised; WARNING unless SUCCESS."""
    severity = INFO if outgoing.body["status"] == "SUCCESS" else WARNING
    message: Message = class_of(outgoing.topic)(topic=outgoing.topic, body=outgoing.body, severity=severity)
    message.id = outgoing.message_id
    return message


def class_of(topic: str) -> type[StageMessage]:
    """The schema class for a topic: the Atomic Host pipeline's topics are those without a pipeline's name."""
    is_all_packages = allpackages.StageV1.topic_infix in topic
    return allpackages.StageV1 if is_all_packages else atomic.StageV1
