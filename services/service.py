"""How a service lives: it logs to standard error, and ends in order when it is told to."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

from distgate.errors import DistgateError

log = logging.getLogger("services")


def serve(name: str, main: Callable[[threading.Event], None]) -> int:
    """Run ``main`` until it returns; the event it gets is set at SIGTERM or SIGINT. The exit status is returned."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        main(stopping)
    except DistgateError as error:
        log.error("%s", error)
        return error.exit_code
    return 0
