"""Runs in the dialect ``ci.koji-build.test.*`` on the message bus."""

from __future__ import annotations

import uuid

from fedora_messaging.message import INFO, WARNING

from distgate.drivers.amqp import Publisher
from distgate.drivers.report_http import required
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.reports.ci_messages import ci_message, topic_of
from distgate.reports.notice import Notice, Refused
from distgate.reports.speaker import Speaker
from distgate_messages.ci_test import CLASSES

#: Names the IDs of these messages apart from everybody else's; never to be changed.
_MESSAGES = uuid.UUID("9d0c8f5e-0e0b-4b1a-9f7c-3f3a4b0c7a52")


class BuildTestBus:
    """The bus of ``publisher``. It refuses topics that our account may not write, which is a right of its own."""

    name = "ci-messages"

    def __init__(self, publisher: Publisher, speaker: Speaker) -> None:
        required(speaker.email, "report_email")
        required(speaker.docs, "report_docs")
        self._publisher, self._speaker = publisher, speaker

    def deliver(self, notice: Notice) -> bool:
        """Publish the message, if the dialect has one for this notice; its ID is the same whenever it is sent."""
        said = ci_message(notice, self._speaker)
        if said is None:
            return False
        state, body = said
        message = CLASSES[state](
            topic=topic_of(notice.main_topic, state), body=body, severity=INFO if _is_good(body) else WARNING
        )
        message.id = str(uuid.uuid5(_MESSAGES, notice.message_id))
        try:
            self._publisher.publish(message)
        except (InfrastructureError, ConfigurationError):
            raise
        except DistgateError as unfit:
            raise Refused(unfit.message) from unfit
        return True


def _is_good(body: dict[str, object]) -> bool:
    test = body["test"]
    result = test.get("result", "passed") if isinstance(test, dict) else "passed"
    return "error" not in body and result in ("passed", "not_applicable")
