"""The reconciler: no accepted change without a run, no run without an end, no dead letter without a line.

Events are lost now and then, and hosts die without a word. The ledger knows what was promised; this service compares
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

#: The word of the command line for one look.
ONCE = "--once"
#: Seconds between two looks at the ledger.
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

    def __init__(self, ledger: Ledger, prefect: PrefectApi, own: Settings) -> None:
        self._ledger = ledger
        self._prefect = prefect
        self._announcer = Announcer(ledger, own)
        self._settings = own

    def look(self) -> list[str]:
        """Mend everything once, and return a sentence for each thing that was done.

        What cannot be mended is logged and does not keep the rest from it; raises InfrastructureError when Prefect
        or the ledger is away, and ConfigurationError when a pipeline has no deployment.
        """
        said = list(self._each(self._ledger.without_heartbeat(self._settings.run_lease), self._close))
        missing: list[ConfigurationError] = []
        for pipeline in PIPELINES:
            try:
                said += self._look_for_unclaimed(pipeline)
            except ConfigurationError as error:
                missing.append(error)  # and keeps no change of the other pipeline from its run
        if missing:
            raise missing[0]
        return said

    def _look_for_unclaimed(self, pipeline: Pipeline) -> list[str]:
        unclaimed = self._ledger.unclaimed(self._settings.sweep_after, pipeline)
        runs = self._runs_for(unclaimed, pipeline)
        return list(self._each(unclaimed, lambda change: self._answer(change, pipeline, runs.get(change.key, []))))

    def _each(self, things: Iterable[T], mend: Callable[[T], str | None]) -> Iterator[str]:
        for thing in things:
            try:
                said = mend(thing)
            except ConfigurationError as error:
                log.error("this cannot be mended: %s", error)
                continue
            if said:
                log.warning("%s", said)
                yield said

    # -- accepted changes without a run ------------------------------------------------------------------------

    def _runs_for(self, changes: Sequence[Change], pipeline: Pipeline) -> Mapping[str, list[FlowRun]]:
        """A pipeline's flow runs that were made for these changes, whoever made them; one in a long queue, too."""
        found: dict[str, list[FlowRun]] = defaultdict(list)
        if not changes:
            return found
        oldest = self._ledger.accepted_at(changes, pipeline) - 3600
        since = datetime.fromtimestamp(oldest, UTC)
        deployment = self._settings.deployment_of(pipeline)
        for run in self._prefect.flow_runs(deployment=deployment, since=since, limit=MOST_RUNS):
            key = _key_of(run)
            if key:
                found[key].append(run)
        return found

    def _answer(self, change: Change, pipeline: Pipeline, runs: Sequence[FlowRun]) -> str | None:
        """See to it that the change has a run, or its last message."""
        lost = [run for run in runs if not run.finished and self._is_lost(run, STARTING_LEASES)]
        for run in lost:
            self._end_in_prefect(run, f"{run.state_type} and without a sign of life: its worker died")
        if any(run.state_type in ("CANCELLED", "CANCELLING") for run in runs):
            cancelled = next(run for run in runs if run.state_type.startswith("CANCELL"))
            said = self._give_up(change, pipeline, cancelled, "ABORTED")
        elif any(not run.finished and run not in lost for run in runs):
            said = None  # it waits for its turn
        else:
            said = self._start(change, pipeline)
        self._ledger.offered(change.key, pipeline)
        return said

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
        known = self._prefect.flow_run(run.run_id)
        if known is not None and not known.finished:
            if not self._is_lost(known):
                return None  # it begins just now, or will be retried: it claims its change again
            self._end_in_prefect(
                known, f"no sign of life for {self._settings.run_lease:g} s: its host or process died"
            )
        status, why = _last_status(known)
        if not self._announcer.close(run.run_id, status):
            return None
        after = self._ledger.run(run.run_id)
        said = after.status if after else status
        return f"{run.change.key}: run {run.build_id} {why}, and had no last message: it is {said}"

    def _is_lost(self, run: FlowRun, leases: int = 1) -> bool:
        """Whether a silent run that Prefect takes for alive has been in its state for so many leases, or too long."""
        allowed = {"RUNNING": leases, "CANCELLING": leases, "PENDING": STARTING_LEASES}.get(run.state_type)
        if allowed is None or run.state_at is None:
            return False
        return datetime.now(UTC) - run.state_at > timedelta(seconds=allowed * self._settings.run_lease)

    def _end_in_prefect(self, run: FlowRun, said: str) -> None:
        log.warning("run %s: %s", run.id, said)
        if run.state_type == "CANCELLING":
            self._prefect.cancelled(run.id, said)
        else:
            self._prefect.crash(run.id, said)


def _last_status(known: FlowRun | None) -> tuple[Status | None, str]:
    """What a run that ended in this state says last, None being its status so far; and what happened to it.

    What it said before stands, whatever this says: the announcer takes nothing back.
    """
    if known is None:
        return "ABORTED", "was deleted in Prefect"
    if known.state_name == DUPLICATE:
        return "ABORTED", "was broken off, and a re-run has taken its change"
    if known.state_type == "COMPLETED":
        return ("UNSTABLE" if known.state_name == UNSTABLE else None), "completed"
    if known.state_type == "FAILED" and known.state_name not in ("TimedOut", FAILURES["cancelled"]):
        return "FAILURE", "failed"
    return "ABORTED", {"CANCELLED": "was cancelled", "CANCELLING": "was cancelled"}.get(known.state_type, "died")


def _key_of(run: FlowRun) -> str | None:
    try:
        return Change.model_validate(run.parameters.get("change")).key
    except ValidationError:
        return None


def main(asked: threading.Event) -> None:
    own = settings()
    ledger = Ledger(own.ledger_url)
    reconciler = Reconciler(ledger, PrefectApi(own.prefect_api_url), own)
    looks = (reconciler.look, DeadLetterWatch(ledger, own).look)
    if ONCE in sys.argv[1:]:
        for look in looks:
            look()  # whoever asks for one look wants to know that it failed
        return
    while not asked.is_set():
        for look in looks:
            try:
                look()
            except DistgateError as error:
                log.warning("reconciling is put off: %s", error)
            except Exception:  # the ladder's last rung: without this service no lost run is ever ended
                log.exception("reconciling met something it does not know")
        asked.wait(INTERVAL)


if __name__ == "__main__":
    sys.exit(serve("reconciler", main))
