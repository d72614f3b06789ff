"""The sweeper: starts what was accepted and what no run has claimed, because events are lost now and then."""

from __future__ import annotations

import logging
import sys
import threading

from distgate.change import Change
from distgate.drivers.prefect_api import PrefectApi
from distgate.errors import InfrastructureError
from distgate.ledger import Ledger
from distgate.settings import settings
from services.lifetime import serve

log = logging.getLogger(__name__)

#: Seconds between two looks at the ledger.
INTERVAL = 10
#: Runs that are started for one change before the operator is called.
TRIES = 3


def sweep(ledger: Ledger, prefect: PrefectApi, deployment: str, older_than: float) -> int:
    """Start a run for every accepted change that nobody claimed for ``older_than`` seconds; their number.

    The change's key makes each start idempotent: a sweep that is repeated starts nothing twice.
    """
    waiting = ledger.unclaimed(older_than)
    for change in waiting:
        log.warning("%s was accepted and no run has claimed it: starting one", change.key)
        _start(prefect, deployment, change)
        ledger.offered(change.key)
    return len(waiting)


def _start(prefect: PrefectApi, deployment: str, change: Change) -> None:
    # A run that we started before and that died before it claimed its change answers to the same key: pass it by.
    for number in range(1, TRIES + 1):
        key = f"{change.key} start {number}"
        run = prefect.create_flow_run(deployment, {"change": change.model_dump()}, idempotency_key=key)
        if not run.finished:
            return
    log.error("%s: %d runs ended before they claimed it; look at them in the UI", change.key, TRIES)


def main(asked: threading.Event) -> None:
    own = settings()
    ledger, prefect = Ledger(own.ledger_url), PrefectApi(own.prefect_api_url)
    while not asked.is_set():
        try:
            sweep(ledger, prefect, own.deployment, own.sweep_after)
        except InfrastructureError as away:
            log.warning("the sweep is put off: %s", away)
        asked.wait(INTERVAL)


if __name__ == "__main__":
    sys.exit(serve("sweeper", main))
