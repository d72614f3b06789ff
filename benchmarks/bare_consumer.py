"""A consumer as fedora-messaging's documentation shows it: reads AMQP-URL QUEUE, parses each message, and no more."""

from __future__ import annotations

import sys

from fedora_messaging import api, config
from fedora_messaging.config import QueueConfig
from fedora_messaging.message import Message


def take(message: Message) -> None:
    message.body.get("commit")


if __name__ == "__main__":
    url, queue = sys.argv[1:]
    config.conf.loaded = True
    config.conf.update(config.DEFAULTS)
    config.conf["amqp_url"] = url
    arguments: dict[str, object] = {"x-dead-letter-exchange": f"{queue}.dead"}
    settings: QueueConfig = {"durable": True, "auto_delete": False, "exclusive": False, "arguments": arguments}
    api.consume(take, bindings=[], queues={queue: settings})
