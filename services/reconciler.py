"""The reconciler: no accepted change without a run, and no run without an end.

Events are lost now and then, and hosts die without a word. The ledger knows what was promised; this service compares
it with what happened, and mends the difference. Repeating it changes nothing.
"""

from __future__ import annotations

import logging
import sys
import threading

from distgate.announcements import Announcer
from distgate.change import Change
from distgate.drivers.prefect_api import FlowRun, PrefectApi
from distgate.errors import DistgateError
from distgate.ledger import Ledger, Run
from distgate.settings import Settings, settings
from distgate.stages import Status
from services.lifetime import serve

log = logging.getLogger(__name__)

#: Seconds between two looks at the ledger.
INTERVAL = 10
#: Runs that are started for one change before the operator is called.
TRIES = 3
#: What a run that ended without its last message is told to have been; None is its status so far.
LAST_STATUS: dict[str, Status | None] = {"COMPLETED": None, "FAILED": "FAILURE"}


class Reconciler:
    """Compares the ledger with Prefect."""

    def __init__(self, ledger: Ledger, prefect: PrefectApi, own: Settings) -> None:
        self._ledger = ledger
        self._prefect = prefect
        self._announcer = Announcer(ledger, own)
        self._settings = own

    def look(self) -> None:
        """Mend everything once; raises InfrastructureError when Prefect or the ledger is away."""
        for change in self._ledger.unclaimed(self._settings.sweep_after):
            self._start(change)
        for run in self._ledger.silent(self._settings.run_lease):
            self._close(run)

    def _start(self, change: Change) -> None:
        log.warning("%s was accepted and no run has claimed it: starting one", change.key)
        # A run that we started before and that died before it claimed its change answers to the same key.
        for number in range(1, TRIES + 1):
            key = f"{change.key} start {number}"
            parameters = {"change": change.model_dump()}
            run = self._prefect.create_flow_run(self._settings.deployment, parameters, idempotency_key=key)
            if not run.finished:
                break
        else:
            log.error("%s: %d runs ended before they claimed it; look at them in the UI", change.key, TRIES)
        self._ledger.offered(change.key)

    def _close(self, run: Run) -> None:
        known = self._prefect.flow_run(run.run_id)
        if known is not None and not known.finished and known.state_type != "RUNNING":
            return  # about to be retried: it will claim its change again
        status = self._last_status(run, known)
        if self._announcer.close(run.run_id, status):
            log.warning(
                "%s: run %s said its last word through us: %s", run.change.key, run.run_id, status or run.status
            )

    def _last_status(self, run: Run, known: FlowRun | None) -> Status | None:
        if known is not None and known.state_type == "RUNNING":
            said = f"no sign of life for {self._settings.run_lease:g} s: its host or process died"
            log.warning("%s: run %s: %s", run.change.key, run.run_id, said)
            self._prefect.crash(run.run_id, said)
            return "ABORTED"
        return LAST_STATUS.get(known.state_type, "ABORTED") if known is not None else "ABORTED"


def main(asked: threading.Event) -> None:
    own = settings()
    reconciler = Reconciler(Ledger(own.ledger_url), PrefectApi(own.prefect_api_url), own)
    while not asked.is_set():
        try:
            reconciler.look()
        except DistgateError as trouble:
            log.warning("reconciling is put off: %s", trouble)
        asked.wait(INTERVAL)


if __name__ == "__main__":
    sys.exit(serve("reconciler", main))
