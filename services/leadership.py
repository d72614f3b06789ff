"""Services of which one may work at a time wait for their turn, and say for whom."""

from __future__ import annotations

import logging
import threading

from distgate.errors import InfrastructureError
from distgate.ledger.leader import LeaderLock

log = logging.getLogger(__name__)

#: Seconds between two looks at a seat that another process has.
LOOK_SECONDS = 2.0


def wait_for_leadership(seat: LeaderLock, asked: threading.Event) -> bool:
    """Return True once the seat is ours, at once when it was; False when we are asked to end instead.

    To be called before each piece of work. Whoever is in the way is logged once; so is trouble with the ledger.
    """
    said = ""
    while not asked.is_set():
        try:
            if seat.take():
                if said:
                    log.info("it is our turn: this %s works from now on", seat.role)
                return True
            words = f"another {seat.role} works for this ledger ({seat.holder() or 'unknown'}): this one waits"
        except InfrastructureError as error:
            words = f"this {seat.role} waits: {error}"
        if words != said:
            log.warning("%s", words)
            said = words
        asked.wait(LOOK_SECONDS)
    return False
