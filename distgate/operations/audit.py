"""The audit: do the books balance? Rules over the ledger's records (distgate.operations.ledger_queries reads them).

For each pipeline: every trigger ends as run, ignored, shed, rejected or duplicate, or still waits for its run; a run
that ended has one verdict and its messages in the order of the contract. Every message was confirmed, or is queued
with its age.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from distgate.bus.announce import trigger_id
from distgate.bus.order import SentMessage, faults_of
from distgate.pipelines import Pipeline

#: What triage may have decided about a change that stands in the ledger.
DECISIONS = ("queued", "ignored", "shed")


@dataclass(frozen=True)
class Trigger:
    """A change that one pipeline decided about; ``seen`` counts the messages about it, times are seconds
    since the epoch."""

    key: str
    decision: str
    seen: int = 1
    accepted_at: float = 0.0
    offered_at: float | None = None
    run_id: str | None = None
    pipeline: Pipeline = "allpackages"

    @property
    def claim(self) -> tuple[str, Pipeline]:
        """What a run must hold to answer it."""
        return self.key, self.pipeline

    @property
    def announced_as(self) -> str:
        """The ID of its messages where no run answers it."""
        return trigger_id(self.key, self.pipeline)


@dataclass(frozen=True)
class RunEntry:
    """A run that claimed a change; ``status`` is its status so far, its verdict once it ended."""

    run_id: str
    key: str
    attempt: int = 1
    status: str = "SUCCESS"
    beat_at: float = 0.0
    ended_at: float | None = None
    pipeline: Pipeline = "allpackages"

    @property
    def claim(self) -> tuple[str, Pipeline]:
        return self.key, self.pipeline


@dataclass(frozen=True)
class OutboxEntry:
    """A message of the outbox; ``seq`` is its place."""

    seq: int
    message_id: str
    run_id: str
    attempt: int
    topic: str
    status: str
    build_id: str
    created_at: float
    sent_at: float | None = None
    tries: int = 0
    error: str | None = None


@dataclass(frozen=True)
class LedgerSnapshot:
    """What is audited: the ledger's records, and how often messages were rejected. ``whole`` is False for a part
    of the ledger, in which a message's run may be missing without fault."""

    triggers: Sequence[Trigger] = ()
    runs: Sequence[RunEntry] = ()
    messages: Sequence[OutboxEntry] = ()
    rejected: int = 0
    whole: bool = True


@dataclass(frozen=True)
class Problem:
    """What does not balance: ``about`` is a change's key, a run or a message ID, ``pipeline`` whose it is."""

    about: str
    problem: str
    pipeline: Pipeline = "allpackages"


@dataclass(frozen=True)
class Audit:
    """The result: counts, the messages that wait for the broker, and what does not balance."""

    triggers: Mapping[str, int]
    runs: Mapping[str, int]
    messages: Mapping[str, float]
    queued: tuple[OutboxEntry, ...] = ()
    problems: tuple[Problem, ...] = ()
    now: float = field(default=0.0)

    @property
    def balanced(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The object that ``distgate audit --json`` prints."""
        return {
            "balanced": self.balanced,
            "triggers": dict(self.triggers),
            "runs": dict(self.runs),
            "messages": dict(self.messages),
            "queued": [
                {
                    "message_id": message.message_id,
                    "topic": message.topic,
                    "build_id": message.build_id,
                    "age_seconds": round(self.now - message.created_at, 1),
                    "tries": message.tries,
                    "error": message.error,
                }
                for message in self.queued
            ],
            "problems": [asdict(problem) for problem in self.problems],
        }


def audit(snapshot: LedgerSnapshot, now: float, patience: float = 600.0) -> Audit:
    """Check the snapshot by the rules at the time ``now``.

    ``patience`` is for how many seconds something may be on its way (an event, a heartbeat, an announcement) before
    it counts as lost.
    """
    messages: dict[str, list[OutboxEntry]] = defaultdict(list)
    for message in sorted(snapshot.messages, key=lambda message: message.seq):
        messages[message.run_id].append(message)
    queued = tuple(message for message in snapshot.messages if message.sent_at is None)
    problems = [
        *_triggers(snapshot, messages, now - patience),
        *_runs(snapshot, messages, now - patience),
    ]
    problems += _without_sender(snapshot) if snapshot.whole else []
    return Audit(_trigger_counts(snapshot), _run_counts(snapshot), _message_counts(snapshot, queued, now), queued,
                 tuple(problems), now)  # fmt: skip


# -- triggers ----------------------------------------------------------------------------------------------------


def _triggers(
    snapshot: LedgerSnapshot, messages: Mapping[str, Sequence[OutboxEntry]], long_ago: float
) -> Iterator[Problem]:
    claimed = {run.claim for run in snapshot.runs}
    for trigger in snapshot.triggers:
        announced = messages.get(trigger.announced_as, ())
        fault = _trigger_fault(trigger, trigger.claim in claimed, announced, long_ago)
        if fault:
            yield Problem(trigger.key, fault, trigger.pipeline)


def _trigger_fault(trigger: Trigger, claimed: bool, announced: Sequence[OutboxEntry], long_ago: float) -> str | None:
    if trigger.decision not in DECISIONS:
        return f"the decision {trigger.decision!r} is none that triage makes"
    if len(announced) > 1:
        return f"it was announced {len(announced)} times that no run answers it"
    if any(SentMessage(message.topic, message.status).pipeline != trigger.pipeline for message in announced):
        return "its message speaks for the other pipeline"
    if claimed:
        return None
    if trigger.run_id is not None:
        return f"run {trigger.run_id} holds it, and the ledger has no such run"
    if trigger.decision == "queued" and trigger.offered_at is None and trigger.accepted_at < long_ago:
        return "it was accepted, and Prefect was not told: is the reconciler running?"
    # The reconciler notes each pass over a change that waits for its run, however long the queue is.
    if trigger.decision == "queued" and trigger.offered_at is not None and trigger.offered_at < long_ago:
        return "no run has claimed it, and none is looked for: is the reconciler running?"
    if trigger.decision != "queued" and not announced and trigger.accepted_at < long_ago:
        return f"it was {trigger.decision}, and no message says so"
    return None


def _trigger_counts(snapshot: LedgerSnapshot) -> dict[str, int]:
    claimed = {run.claim for run in snapshot.runs}
    ends = Counter(_end_of(trigger, trigger.claim in claimed) for trigger in snapshot.triggers)
    duplicates = sum(trigger.seen - 1 for trigger in snapshot.triggers)
    counts = {name: ends[name] for name in ("run", "waiting", "ignored", "shed")}
    counts |= {"rejected": snapshot.rejected, "duplicate": duplicates}
    return {"total": sum(ends.values()) + snapshot.rejected + duplicates, **counts}


def _end_of(trigger: Trigger, claimed: bool) -> str:
    if claimed:
        return "run"
    return "waiting" if trigger.decision == "queued" else trigger.decision


# -- runs --------------------------------------------------------------------------------------------------------


def _runs(
    snapshot: LedgerSnapshot, messages: Mapping[str, Sequence[OutboxEntry]], long_ago: float
) -> Iterator[Problem]:
    for run in snapshot.runs:
        of_run = messages.get(run.run_id, ())
        for attempt in range(1, run.attempt + 1):
            of_attempt = [message for message in of_run if message.attempt == attempt]
            for fault in _run_faults(run, attempt, of_attempt, long_ago):
                yield Problem(_build_id(run, attempt), fault, run.pipeline)
        if any(message.attempt > run.attempt for message in of_run):
            yield Problem(run.run_id, "it has messages of an attempt that never began", run.pipeline)
        yield from (Problem(run.run_id, fault, run.pipeline) for fault in _confirmation_faults(of_run))


def _run_faults(run: RunEntry, attempt: int, messages: Sequence[OutboxEntry], long_ago: float) -> Iterator[str]:
    latest = attempt == run.attempt
    ended = not latest or run.ended_at is not None
    yield from faults_of([SentMessage(message.topic, message.status) for message in messages], ended, run.pipeline)
    if latest and messages and messages[-1].status != run.status:
        yield f"its last message says {messages[-1].status}, and the ledger {run.status}"
    if any(message.build_id != _build_id(run, attempt) for message in messages):
        yield "a message carries the build_id of another run"
    if not ended and run.beat_at < long_ago:
        yield "it has no verdict and no heartbeat: is the reconciler running?"


def _confirmation_faults(messages: Sequence[OutboxEntry]) -> Iterator[str]:
    for before, after in itertools.pairwise(messages):
        if after.sent_at is not None and (before.sent_at is None or before.sent_at > after.sent_at):
            yield f"{after.topic} was sent before {before.topic}"


def _build_id(run: RunEntry, attempt: int) -> str:
    return run.run_id if attempt == 1 else f"{run.run_id}.{attempt}"


def _run_counts(snapshot: LedgerSnapshot) -> dict[str, int]:
    """Attempts are counted: after its last message a retry is a run of its own on the wire."""
    run_ids = {run.run_id for run in snapshot.runs}
    verdicts = Counter(
        message.status
        for message in snapshot.messages
        if message.run_id in run_ids and SentMessage(message.topic, "").last
    )
    named = {status: verdicts[status] for status in ("SUCCESS", "UNSTABLE", "FAILURE", "ABORTED")}
    running = sum(run.ended_at is None for run in snapshot.runs)
    return {"total": sum(run.attempt for run in snapshot.runs), "running": running, **named}


# -- messages ----------------------------------------------------------------------------------------------------


def _without_sender(snapshot: LedgerSnapshot) -> Iterator[Problem]:
    senders = {run.run_id for run in snapshot.runs} | {trigger.announced_as for trigger in snapshot.triggers}
    for message in snapshot.messages:
        if message.run_id not in senders:
            problem = f"{message.topic} belongs to no run and to no change"
            yield Problem(message.message_id, problem, SentMessage(message.topic, message.status).pipeline)


def _message_counts(snapshot: LedgerSnapshot, queued: Sequence[OutboxEntry], now: float) -> dict[str, float]:
    oldest = max((now - message.created_at for message in queued), default=0.0)
    return {
        "total": len(snapshot.messages),
        "confirmed": len(snapshot.messages) - len(queued),
        "queued": len(queued),
        "oldest_queued_seconds": round(oldest, 1),
    }
