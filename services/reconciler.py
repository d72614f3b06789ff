"""The reconciler: no accepted change without a run, no run without an end, no dead letter without a line.

Events are lost now and then, and hosts die without notice. The ledger knows what was promised; this service compares
it with what happened, and mends the difference. Repeating it changes nothing.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from pydantic import ValidationError

from distgate.bus.announce import Announcer, trigger_key
from distgate.changes.change import Change
from distgate.errors import ConfigurationError, DistgateError
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import Run
from distgate.pipelines import DUPLICATE, FAILURES, PIPELINES, UNSTABLE, Pipeline, Status
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.settings import Settings, settings
from services.dead_letter_watch import DeadLetterWatch
from services.service import serve

log = logging.getLogger(__name__)

#: The command line's option for one pass.
ONCE = "--once"
#: Seconds between two passes.
INTERVAL = 10
#: Runs that are started for one change before it is answered with FAILURE.
TRIES = 3
#: A process that runs a flow needs seconds to begin, on a busy host a minute: so many leases mean that it is lost.
STARTING_LEASES = 5
#: Flow runs that are looked through for those of accepted changes.
MOST_RUNS = 20_000

T = TypeVar("T")


class Reconciler:
    """Compares the ledger with Prefect."""

    def __init__(self, ledger: Ledger, prefect: PrefectApi, settings: Settings) -> None:
        self._ledger = ledger
        self._prefect = prefect
        self._announcer = Announcer(ledger, settings)
        self._settings = settings

    def reconcile_once(self) -> list[str]:
        """Mend everything once, and return a sentence for each thing that was done.

        What cannot be mended is logged, and the rest goes on; raises InfrastructureError when Prefect or the ledger
        cannot be reached, and ConfigurationError when a pipeline has no deployment.
        """
        mended = list(self._each(self._ledger.without_heartbeat(self._settings.run_lease), self._close))
        missing: list[ConfigurationError] = []
        for pipeline in PIPELINES:
            try:
                mended += self._answer_unclaimed(pipeline)
            except ConfigurationError as error:
                missing.append(error)  # the other pipeline's changes still get their runs
        if missing:
            raise missing[0]
        return mended

    def _answer_unclaimed(self, pipeline: Pipeline) -> list[str]:
        unclaimed = self._ledger.unclaimed(self._settings.sweep_after, pipeline)
        runs = self._runs_for(unclaimed, pipeline)
        return list(self._each(unclaimed, lambda change: self._answer(change, pipeline, runs.get(change.key, []))))

    def _each(self, things: Iterable[T], mend: Callable[[T], str | None]) -> Iterator[str]:
        for thing in things:
            try:
                outcome = mend(thing)
            except ConfigurationError as error:
                log.error("this cannot be mended: %s", error)
                continue
            if outcome:
                log.warning("%s", outcome)
                yield outcome

    # -- accepted changes without a run ------------------------------------------------------------------------

    def _runs_for(self, changes: Sequence[Change], pipeline: Pipeline) -> Mapping[str, list[FlowRun]]:
        """A pipeline's flow runs that were made for these changes, by hand, by an automation or by us."""
        by_key: dict[str, list[FlowRun]] = defaultdict(list)
        if not changes:
            return by_key
        oldest = self._ledger.accepted_at(changes, pipeline) - 3600
        since = datetime.fromtimestamp(oldest, UTC)
        deployment = self._settings.deployment_of(pipeline)
        for run in self._prefect.flow_runs(deployment=deployment, since=since, limit=MOST_RUNS):
            key = _key_of(run)
            if key:
                by_key[key].append(run)
        return by_key

    def _answer(self, change: Change, pipeline: Pipeline, runs: Sequence[FlowRun]) -> str | None:
        """Start a run for the change, or send its last message, where neither exists."""
        lost = [run for run in runs if not run.finished and self._is_lost(run, STARTING_LEASES)]
        for run in lost:
            self._end_in_prefect(run, f"{run.state_type} and without a heartbeat: its worker died")
        if any(run.state_type in ("CANCELLED", "CANCELLING") for run in runs):
            cancelled = next(run for run in runs if run.state_type.startswith("CANCELL"))
            outcome = self._give_up(change, pipeline, cancelled, "ABORTED")
        elif any(not run.finished and run not in lost for run in runs):
            outcome = None  # it waits in its queue
        else:
            outcome = self._start(change, pipeline)
        self._ledger.offered(change.key, pipeline)
        return outcome

    def _start(self, change: Change, pipeline: Pipeline) -> str | None:
        # A run that we started before and that died before it claimed its change answers to the same key.
        for number in range(1, TRIES + 1):
            key = f"{trigger_key(pipeline, change.key)} start {number}"
            parameters = {"change": change.model_dump()}
            deployment = self._settings.deployment_of(pipeline)
            run = self._prefect.create_flow_run(deployment, parameters, idempotency_key=key)
            if not run.finished:
                return f"{change.key}: no {pipeline} run had claimed it; run {run.id} was started"
        return self._give_up(change, pipeline, run, "FAILURE")

    def _give_up(self, change: Change, pipeline: Pipeline, run: FlowRun, status: Status) -> str | None:
        """Answer a change that no run will claim any more; the run that did not come to it stands for its end."""
        url = f"{self._settings.ui_url.rstrip('/')}/runs/flow-run/{run.id}"
        claimed = self._ledger.claim(change, run.id, url, pipeline=pipeline)
        if claimed is None or not self._announcer.close(run.id, status):
            return None
        why = "was cancelled" if status == "ABORTED" else f"and {TRIES - 1} before it ended"
        return f"{change.key}: run {run.id} {why} before it could begin; it is answered with {status}"

    # -- runs without an end -------------------------------------------------------------------------------------

    def _close(self, run: Run) -> str | None:
        flow_run = self._prefect.flow_run(run.run_id)
        if flow_run is not None and not flow_run.finished:
            if not self._is_lost(flow_run):
                return None  # it begins just now, or will be retried: it claims its change again
            self._end_in_prefect(
                flow_run, f"no heartbeat for {self._settings.run_lease:g} s: its host or process died"
            )
        status, why = _last_status(flow_run)
        if not self._announcer.close(run.run_id, status):
            return None
        after = self._ledger.run(run.run_id)
        final = after.status if after else status
        return f"{run.change.key}: run {run.build_id} {why}, and had no last message: it is {final}"

    def _is_lost(self, run: FlowRun, leases: int = 1) -> bool:
        """Whether a silent run that Prefect takes for alive has been in its state for so many leases, or too long."""
        allowed = {"RUNNING": leases, "CANCELLING": leases, "PENDING": STARTING_LEASES}.get(run.state_type)
        if allowed is None or run.state_at is None:
            return False
        return datetime.now(UTC) - run.state_at > timedelta(seconds=allowed * self._settings.run_lease)

    def _end_in_prefect(self, run: FlowRun, reason: str) -> None:
        log.warning("run %s: %s", run.id, reason)
        if run.state_type == "CANCELLING":
            self._prefect.cancelled(run.id, reason)
        else:
            self._prefect.crash(run.id, reason)


def _last_status(run: FlowRun | None) -> tuple[Status | None, str]:
    """The status of the last message of a run that ended in this state (None: its status so far), and what happened.

    A message that was sent stands: the announcer takes nothing back.
    """
    if run is None:
        return "ABORTED", "was deleted in Prefect"
    if run.state_name == DUPLICATE:
        return "ABORTED", "was broken off, and a re-run has taken its change"
    if run.state_type == "COMPLETED":
        return ("UNSTABLE" if run.state_name == UNSTABLE else None), "completed"
    if run.state_type == "FAILED" and run.state_name not in ("TimedOut", FAILURES["cancelled"]):
        return "FAILURE", "failed"
    return "ABORTED", {"CANCELLED": "was cancelled", "CANCELLING": "was cancelled"}.get(run.state_type, "died")


def _key_of(run: FlowRun) -> str | None:
    try:
        return Change.model_validate(run.parameters.get("change")).key
    except ValidationError:
        return None


def main(stopping: threading.Event) -> None:
    config = settings()
    ledger = Ledger(config.ledger_url)
    reconciler = Reconciler(ledger, PrefectApi(config.prefect_api_url), config)
    checks = (reconciler.reconcile_once, DeadLetterWatch(ledger, config).check)
    if ONCE in sys.argv[1:]:
        for check in checks:
            check()  # an error ends the command: its caller has to know
        return
    while not stopping.is_set():
        for check in checks:
            try:
                check()
            except DistgateError as error:
                log.warning("reconciling is put off: %s", error)
            except Exception:  # the ladder's last rung: without this service no lost run is ever ended
                log.exception("reconciling failed on an unexpected error")
        stopping.wait(INTERVAL)


if __name__ == "__main__":
    sys.exit(serve("reconciler", main))
