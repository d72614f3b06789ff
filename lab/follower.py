"""Prints messages as they are read from a queue bound to the exchange: the messages as sent."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from distgate.bus.queues import Delivery, follow
from distgate.errors import DistgateError
from distgate.settings import settings
from distgate.text import printable


def line_of(delivery: Delivery, *, as_json: bool = False) -> str:
    """One line about a message: its topic, status and package; or the whole of it as JSON."""
    if as_json:
        envelope = {"topic": delivery.topic, "id": delivery.message_id, "headers": delivery.headers}
        return json.dumps({**envelope, "body": delivery.body}, sort_keys=True, default=str)
    facts = [str(delivery.body[key]) for key in ("status", "repo", "branch", "nvr") if delivery.body.get(key)]
    return printable("  ".join([delivery.topic, *facts]), newlines=False)


def lines(url: str, exchange: str, topics: list[str], *, queue: str = "", as_json: bool = False) -> Iterator[str]:
    """A line for every message on ``topics``, as it arrives; the queue is bound before this returns."""
    deliveries = follow(url, exchange, topics, queue=queue)
    return (line_of(delivery, as_json=as_json) for delivery in deliveries)


def main() -> int:
    """``python -m lab.follower [TOPIC...]``: print messages of DISTGATE_AMQP_URL until interrupted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("topics", nargs="*", default=["#"], help="topic patterns, as the broker knows them")
    parser.add_argument("--queue", default="", help="durable queue that keeps messages while there is no reader")
    parser.add_argument("--json", action="store_true", help="whole messages, one JSON object a line")
    options = parser.parse_args()
    try:
        configured = settings()
        for line in lines(
            configured.amqp_url, configured.exchange, options.topics, queue=options.queue, as_json=options.json
        ):
            print(line, flush=True)
    except KeyboardInterrupt:
        return 0
    except DistgateError as error:
        print(f"follower: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
