"""Services of which one may work at a time wait to become the leader, and log which process is."""

from __future__ import annotations

import logging
import threading

from distgate.errors import InfrastructureError
from distgate.ledger.leader import LeaderLock

log = logging.getLogger(__name__)

#: Seconds between two tries for a lock that another process holds.
RETRY_SECONDS = 2.0


def wait_for_leadership(lock: LeaderLock, stopping: threading.Event) -> bool:
    """Return True once this process holds the lock, at once if it did; False once ``stopping`` is set.

    To be called before each piece of work. The present leader is logged once; so is an error of the ledger.
    """
    logged = ""
    while not stopping.is_set():
        try:
            if lock.acquire():
                if logged:
                    log.info("this %s is the leader from now on", lock.role)
                return True
            reason = f"another {lock.role} works for this ledger ({lock.holder() or 'unknown'}): this one waits"
        except InfrastructureError as error:
            reason = f"this {lock.role} waits: {error}"
        if reason != logged:
            log.warning("%s", reason)
            logged = reason
        stopping.wait(RETRY_SECONDS)
    return False
