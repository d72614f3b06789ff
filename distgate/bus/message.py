"""A letter of the outbox as a message of the bus."""

from __future__ import annotations

from fedora_messaging.message import INFO, WARNING, Message

from distgate.ledger.runs import OutboxMessage
from distgate_messages import allpackages, atomic
from distgate_messages.stage import StageMessage


def as_message(letter: OutboxMessage) -> Message:
    """The message with the letter's own ID, so that one that is sent twice is recognised; bad news is a WARNING."""
    severity = INFO if letter.body["status"] == "SUCCESS" else WARNING
    message: Message = class_of(letter.topic)(topic=letter.topic, body=letter.body, severity=severity)
    message.id = letter.message_id
    return message


def class_of(topic: str) -> type[StageMessage]:
    """The schema class for a topic: the Atomic Host pipeline's topics are those without a pipeline's name."""
    is_all_packages = allpackages.StageV1.topic_infix in topic
    return allpackages.StageV1 if is_all_packages else atomic.StageV1
