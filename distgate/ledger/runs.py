# ruff: noqa: S608 - the statements are put together of this file's own words; values travel beside them
"""What runs do with the ledger: take a change, learn facts, say messages, and tell that they are alive.

Every run imports this before its first message, and SQLAlchemy alone would cost it more than all else that it
imports of ours: the statements are SQL that SQLite and PostgreSQL both understand, and what carries them out is a
driver of the database itself (distgate.ledger.connections) or, in a service, the engine of distgate.ledger.ledger.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from distgate.changes.change import Change
from distgate.pipelines import Pipeline
from distgate.text import printable

_RUNS = (
    "SELECT runs.run_id, changes.change, runs.build_url, runs.attempt, runs.status, runs.open_stage, runs.facts,"
    " runs.ended_at, runs.pipeline"
    " FROM runs JOIN changes ON changes.key = runs.key AND changes.pipeline = runs.pipeline"
)
_LETTERS = "SELECT seq, message_id, topic, body, created_at, sent_at, tries, error FROM outbox"
#: What stands there is kept; how many rows were added says which it was.
_ADD_CHANGE = (
    "INSERT INTO changes (key, pipeline, change, decision, reason, rule, seen, head, accepted_at) VALUES"
    " (:key, :pipeline, :change, 'queued', 'started by hand', 'manual', 1, :head, :now) ON CONFLICT DO NOTHING"
)
_ADD_RUN = (
    "INSERT INTO runs (run_id, key, pipeline, build_url, attempt, status, facts, claimed_at, beat_at) VALUES"
    " (:run_id, :key, :pipeline, :build_url, 1, 'SUCCESS', '{}', :now, :now) ON CONFLICT DO NOTHING"
)
_ADD_LETTER = (
    "INSERT INTO outbox (message_id, run_id, topic, attempt, body, created_at, tries) VALUES"
    " (:message_id, :run_id, :topic, :attempt, :body, :now, 0) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True)
class Run:
    """A run that holds a change for its pipeline. ``attempt`` counts its complete sets of messages, from 1."""

    run_id: str
    change: Change
    build_url: str
    attempt: int
    status: str
    open_stage: str | None
    facts: dict[str, str]
    ended: bool
    pipeline: Pipeline = "allpackages"

    @property
    def build_id(self) -> str:
        """The ID on the wire: a retry after the last message is a run of its own there."""
        return self.run_id if self.attempt == 1 else f"{self.run_id}.{self.attempt}"


@dataclass(frozen=True)
class OutboxMessage:
    """A message in the outbox."""

    seq: int
    message_id: str
    topic: str
    body: dict[str, str]
    created_at: float
    sent_at: float | None
    tries: int
    error: str | None


class Statements(Protocol):
    """One transaction: SQL with values by name, ``:run_id``."""

    @property
    def locking(self) -> str:
        """What follows a SELECT of rows that are about to be changed; SQLite has no need of it, nor a word for it."""
        ...

    def rows(self, sql: str, **values: Any) -> Sequence[Sequence[Any]]:
        """What a SELECT finds."""
        ...

    def changed(self, sql: str, **values: Any) -> int:
        """How many rows a statement wrote."""
        ...


class RunLedger(ABC):
    """The ledger as runs use it; every method is one transaction and safe to repeat."""

    @abstractmethod
    def statements(self) -> AbstractContextManager[Statements]:
        """One transaction, which an exception undoes; InfrastructureError when it cannot be had."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    # -- runs ----------------------------------------------------------------------------------------------------

    def claim(
        self,
        change: Change,
        run_id: str,
        build_url: str,
        *,
        again: bool = False,
        pipeline: Pipeline = "allpackages",
    ) -> Run | None:
        """Take the change for a run of ``pipeline``; None when another run of it holds the change and ``again`` does
        not ask for a re-run.

        The run that holds it gets it again: that is a retry, and a new attempt if its last message was written.
        """
        own = {"key": change.key, "pipeline": pipeline}
        with self.statements() as ask:
            if not _take(ask, change, run_id, pipeline, again):
                return None
            if not ask.changed(_ADD_RUN, **own, run_id=run_id, build_url=build_url, now=time.time()):
                _reopen(ask, run_id)
            return _run_of(ask, run_id)

    def run(self, run_id: str) -> Run | None:
        """The run as the ledger knows it, or None."""
        with self.statements() as ask:
            return _run_of(ask, run_id)

    def beat(self, run_id: str, attempt: int) -> bool:
        """Say that the run is alive; False when it was given up, or another attempt of it has begun."""
        mine = "run_id = :run_id AND attempt = :attempt AND ended_at IS NULL"
        with self.statements() as ask:
            beaten = f"UPDATE runs SET beat_at = :now WHERE {mine}"
            return ask.changed(beaten, run_id=run_id, attempt=attempt, now=time.time()) == 1

    def silent(self, seconds: float) -> list[Run]:
        """Runs without a last message that have not said for ``seconds`` that they are alive."""
        quiet = f"{_RUNS} WHERE runs.ended_at IS NULL AND runs.beat_at < :since"
        with self.statements() as ask:
            return [_run(*row) for row in ask.rows(quiet, since=time.time() - seconds)]

    def runs_of(self, key: str, pipeline: Pipeline = "allpackages") -> list[Run]:
        """Every run of ``pipeline`` that ever held the change, oldest first."""
        mine = f"{_RUNS} WHERE runs.key = :key AND runs.pipeline = :pipeline ORDER BY runs.claimed_at"
        with self.statements() as ask:
            return [_run(*row) for row in ask.rows(mine, key=key, pipeline=pipeline)]

    def record_facts(self, run_id: str, **facts: str) -> None:
        """Keep facts of a run, such as its NVR, for every later message; of texts, what people can read."""
        # Strangers wrote some of them, and PostgreSQL reads no JSON with a NUL or half a character in it.
        told = {name: printable(fact) for name, fact in facts.items()}
        with self.statements() as ask:
            mine = f"SELECT facts FROM runs WHERE run_id = :run_id{ask.locking}"
            known = ask.rows(mine, run_id=run_id)
            if not known:
                raise LookupError(f"the ledger has no run {run_id}")
            merged = json.dumps(json.loads(known[0][0]) | told, sort_keys=True)
            ask.changed("UPDATE runs SET facts = :facts WHERE run_id = :run_id", facts=merged, run_id=run_id)

    # -- outbox --------------------------------------------------------------------------------------------------

    def post(
        self,
        run_id: str,
        attempt: int,
        message_id: str,
        body: dict[str, str],
        *,
        open_stage: str | None = None,
        last: bool = False,
    ) -> bool:
        """Put a message in the outbox and its status into the run, in one transaction.

        False when this run said it before in this attempt, or has said its last message: nothing is changed then.
        """
        letter = {"topic": body["topic"], "body": json.dumps(body, sort_keys=True), "now": time.time()}
        said = "UPDATE runs SET status = :status, open_stage = :open_stage"
        with self.statements() as ask:
            # Locked: the reconciler may be saying the last message just now.
            run = ask.rows(f"SELECT ended_at FROM runs WHERE run_id = :run_id{ask.locking}", run_id=run_id)
            if run and run[0][0] is not None:
                return False
            if not ask.changed(_ADD_LETTER, message_id=message_id, run_id=run_id, attempt=attempt, **letter):
                return False
            news: dict[str, Any] = {"run_id": run_id, "status": body["status"], "open_stage": open_stage}
            if last:
                ask.changed(f"{said}, ended_at = :now WHERE run_id = :run_id", **news, now=time.time())
            else:
                ask.changed(f"{said} WHERE run_id = :run_id", **news)
            return True

    def unsent(self, limit: int = 50) -> list[OutboxMessage]:
        """The oldest messages that the broker has not confirmed, in their order."""
        with self.statements() as ask:
            found = ask.rows(f"{_LETTERS} WHERE sent_at IS NULL ORDER BY seq LIMIT :limit", limit=limit)
            return [_letter(*row) for row in found]

    def messages_of(self, run_id: str) -> list[OutboxMessage]:
        """Every message of a run, in order."""
        with self.statements() as ask:
            found = ask.rows(f"{_LETTERS} WHERE run_id = :run_id ORDER BY seq", run_id=run_id)
            return [_letter(*row) for row in found]


def _take(ask: Statements, change: Change, run_id: str, pipeline: Pipeline, again: bool) -> bool:
    """Write down that the run holds the change; False when another one does."""
    own = {"key": change.key, "pipeline": pipeline}
    this = "WHERE key = :key AND pipeline = :pipeline"
    free = this if again else f"{this} AND (run_id IS NULL OR run_id = :run_id)"
    while True:
        # A run is no push: it is not counted as one more of them.
        ask.changed(_ADD_CHANGE, **own, change=change.model_dump_json(), head=False, now=time.time())
        if ask.changed(f"UPDATE changes SET run_id = :run_id {free}", **own, run_id=run_id):
            return True
        if ask.rows(f"SELECT key FROM changes {this}", **own):
            return False
        # It was there, and has been forgotten since: once more.


def _reopen(ask: Statements, run_id: str) -> None:
    now = time.time()
    ask.changed("UPDATE runs SET beat_at = :now WHERE run_id = :run_id", run_id=run_id, now=now)
    # A run that said its last word begins a new set of messages; what it learnt stays true.
    fresh = "attempt = attempt + 1, status = 'SUCCESS', ended_at = NULL, open_stage = NULL"
    ask.changed(f"UPDATE runs SET {fresh} WHERE run_id = :run_id AND ended_at IS NOT NULL", run_id=run_id)


def _run_of(ask: Statements, run_id: str) -> Run | None:
    found = ask.rows(f"{_RUNS} WHERE runs.run_id = :run_id", run_id=run_id)
    return _run(*found[0]) if found else None


def _run(
    run_id: str,
    change: str,
    build_url: str,
    attempt: int,
    status: str,
    open_stage: str | None,
    facts: str,
    ended_at: float | None,
    pipeline: Pipeline,
) -> Run:
    known = Change.model_validate_json(change), json.loads(facts)
    ended = ended_at is not None
    return Run(run_id, known[0], build_url, attempt, status, open_stage, known[1], ended, pipeline)


def _letter(seq: int, message_id: str, topic: str, body: str, *rest: Any) -> OutboxMessage:
    return OutboxMessage(seq, message_id, topic, json.loads(body), *rest)
