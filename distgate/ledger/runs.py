"""What the ledger hands out: a change's acceptance, a run, a message of the outbox."""

from __future__ import annotations

from dataclasses import dataclass

from distgate.changes.change import Change
from distgate.pipelines import Pipeline


@dataclass(frozen=True)
class Acceptance:
    """What the ledger says of a decided change: ``new`` is False when it stood there before, ``offered`` is
    True once Prefect was told of it or a run has claimed it. ``decision`` and ``rule`` are those that stand there."""

    key: str
    new: bool
    decision: str
    offered: bool = False
    rule: str = ""


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
    """A message in the outbox; ``seq`` is its place."""

    seq: int
    message_id: str
    topic: str
    body: dict[str, str]
    created_at: float
    sent_at: float | None
    tries: int
    error: str | None
