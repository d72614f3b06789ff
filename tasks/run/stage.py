"""A stage is a task whose hooks announce it: queued when entered, running at work, complete at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, wraps
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, runtime_checkable

from prefect import Task, runtime, task
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.flows import Flow

from distgate.bus.announce import Announcer
from distgate.errors import Blame, Cancelled, InfrastructureError
from distgate.ledger.ledger import Ledger
from distgate.ledger.resume import origin_of
from distgate.ledger.runs import RunFacts
from distgate.pipelines import DUPLICATE, FAILURES, Stage, Status
from distgate.settings import settings
from tasks.run.artifacts import uploads_artifacts

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
Location = Callable[[Any], str]
Slot = Callable[[Any], AbstractContextManager[Any]]


@lru_cache(maxsize=1)
def ledger() -> Ledger:
    """The ledger of this process, as runs use it."""
    return Ledger(settings().ledger_url)


@lru_cache(maxsize=1)
def announcer() -> Announcer:
    """The writer of this process's messages."""
    return Announcer(ledger(), settings())


@runtime_checkable
class StageResult(Protocol):
    """The result of a stage that judges the change: its status, and the reason in one sentence."""

    @property
    def status(self) -> str:
        """SUCCESS or UNSTABLE."""

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, with who is to blame when it is not SUCCESS."""

    @property
    def blame(self) -> Blame | None:
        """Who is to blame; None for SUCCESS."""


class StageTask(Generic[P, R]):
    """A pipeline stage: calling it announces ``queued``, waits for its slot and then runs its task."""

    def __init__(self, row: Stage, run: Task[P, R], slot: Slot) -> None:
        self.row = row
        self.task = run
        self._slot = slot

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        announcer().stage(str(runtime.flow_run.id), self.row.suffix, "queued")
        with self._slot(args[0]):
            return self.task(*args, **kwargs)


def stage(
    row: Stage, location: Location = lambda _job: "", slot: Slot = nullcontext
) -> Callable[[Callable[P, R]], StageTask[P, R]]:
    """Make a function the stage of a ``row`` of the stage table. Its argument ``job`` is the job. What it returns may
    have a status of its own (StageResult), for the stage's last message to say.

    Infrastructure errors are retried; what the package did is not. Results are kept under the flow run's ID, so
    that a retried run resumes at the stage that failed, and a later run may take them over (tasks.run.resume). A
    result that is valid in one place only is made again elsewhere: ``location`` names the place for a job. ``slot``
    limits how many runs may be in the stage at a time.
    """

    delays = settings().retry_delays

    def wrap(function: Callable[P, R]) -> StageTask[P, R]:
        run = task(
            name=row.title,
            retries=len(delays),
            retry_delay_seconds=list(delays),
            retry_condition_fn=is_infrastructure,
            persist_result=True,
            cache_key_fn=result_key(row.suffix, location),
            on_running=[_announcing(row.suffix, "running")],
            on_completion=[_announcing(row.suffix, "complete")],
            on_failure=[_announcing(row.suffix, "complete", failed=True)],
        )(uploads_artifacts(_records_status(row, function)))
        return StageTask(row, run, slot)

    return wrap


def _records_status(row: Stage, function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def and_record(*args: P.args, **kwargs: P.kwargs) -> R:
        result = function(*args, **kwargs)
        if isinstance(result, StageResult):
            job: Any = args[0]
            ledger().record_facts(job.run_id, RunFacts(statuses={row.suffix: result.status}))
        return result

    return and_record


def end_of_run(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Flow hook: the last message of the run, after closing a stage that was left open."""
    try:
        announcer().close(str(flow_run.id), _last_status(str(flow_run.id), state))
    except Exception:
        # Prefect swallows what a hook raises; the operator must find it in the log.
        log.exception("run %s ended as %s, and its last message could not be written", flow_run.id, state.name)
        raise


def _last_status(run_id: str, state: State[Any]) -> Status | None:
    """None is the run's status so far. A hook may see a cancellation while it is still going on."""
    if state.is_completed():
        # A retry of a run that was broken off, when a re-run has taken its change: it passed nothing.
        return "ABORTED" if state.name == DUPLICATE else None
    if not state.is_failed() or state.name in ("TimedOut", FAILURES["cancelled"]):
        return "ABORTED"
    run = ledger().run(run_id)
    return None if run is not None and run.status in ("FAILURE", "ABORTED") else "FAILURE"


def _announcing(
    suffix: str, state_name: str, *, failed: bool = False
) -> Callable[[Task[..., Any], TaskRun, State[Any]], None]:
    def hook(_task: Task[..., Any], run: TaskRun, state: State[Any]) -> None:
        try:
            announcer().stage(str(run.flow_run_id), suffix, state_name, _blame(state) if failed else None)
        except Exception:
            log.exception("stage %s is %s, and its message could not be written", suffix, state_name)
            raise

    hook.__name__ = f"announce_{state_name}"
    return hook


def _blame(state: State[Any]) -> Status:
    return "ABORTED" if isinstance(state.result(raise_on_failure=False), Cancelled) else "FAILURE"


def is_infrastructure(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a task failed on our side, so that it is worth another try: for retry_condition_fn."""
    return isinstance(state.result(raise_on_failure=False), InfrastructureError)


def result_key(suffix: str, location: Location = lambda _job: "") -> Callable[[Any, dict[str, Any]], str]:
    """A stage's result is found under the run that made it (this one, or the one that it was taken over from), and
    under the place where it is valid."""

    def key(context: Any, parameters: dict[str, Any]) -> str:
        run_id = str(context.task_run.flow_run_id)
        run = ledger().run(run_id)
        made_by = origin_of(run.facts if run else RunFacts(), suffix, run_id)
        return "-".join(filter(None, (made_by, context.task.name, location(parameters["job"]))))

    return key
