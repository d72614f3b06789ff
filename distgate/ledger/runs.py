"""The records of the ledger: a change's acceptance, a run, a message of the outbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from distgate.changes.change import Change
from distgate.pipelines import Pipeline


@dataclass(frozen=True)
class Acceptance:
    """A decided change in the ledger: ``new`` is False when it was there before, ``offered`` is True once it was
    offered to Prefect or a run has claimed it. ``decision`` and ``rule`` are the recorded ones."""

    key: str
    new: bool
    decision: str
    offered: bool = False
    rule: str = ""


class RunFacts(BaseModel):
    """What is known of a run, empty where it is not; some of it is in every later message.

    ``statuses`` are those of stages that test, and ``results`` the earlier runs whose results stages took over,
    both by a stage's suffix.
    """

    model_config = ConfigDict(frozen=True)

    nvr: str = ""
    original_spec_nvr: str = ""
    package_url: str = ""
    koji_task: str = ""
    """The hub and the number of the task, with a space between them."""
    compose_rev: str = ""
    compose_url: str = ""
    type: str = ""
    image_name: str = ""
    image_url: str = ""
    blame: str = ""
    sentence: str = ""
    statuses: Mapping[str, str] = {}
    results: Mapping[str, str] = {}

    @classmethod
    def from_column(cls, text: str) -> RunFacts:
        """The facts as the ledger's column has them: one flat object."""
        stored: dict[str, str] = json.loads(text)
        by_suffix = {
            field: {name.removeprefix(prefix): fact for name, fact in stored.items() if name.startswith(prefix)}
            for field, prefix in _BY_SUFFIX.items()
        }
        return cls.model_validate(stored | by_suffix)

    def flat(self) -> dict[str, str]:
        """The facts that were set, by their names in the ledger's column."""
        facts: dict[str, str] = self.model_dump(exclude_unset=True, exclude=set(_BY_SUFFIX))
        for field, prefix in _BY_SUFFIX.items():
            facts |= {f"{prefix}{suffix}": fact for suffix, fact in getattr(self, field).items()}
        return facts


#: How facts of a stage are called in the column, before the stage's suffix.
_BY_SUFFIX = {"statuses": "status of ", "results": "result of "}


@dataclass(frozen=True)
class Run:
    """A run that holds a change for its pipeline. ``attempt`` counts its complete sets of messages, from 1."""

    run_id: str
    change: Change
    build_url: str
    attempt: int
    status: str
    open_stage: str | None
    facts: RunFacts
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
