"""A letter of the outbox as a message of the bus."""

from __future__ import annotations

from fedora_messaging.message import INFO, WARNING, Message

from distgate.ledger import Letter
from distgate_messages.allpackages import StageV1


def as_message(letter: Letter) -> Message:
    """The message with the letter's own ID, so that one that is sent twice is recognised; bad news is a WARNING."""
    severity = INFO if letter.body["status"] == "SUCCESS" else WARNING
    message = StageV1(topic=letter.topic, body=letter.body, severity=severity)
    message.id = letter.message_id
    return message
