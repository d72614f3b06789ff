"""How long each stage took, read from the times of its messages in the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from distgate.ledger.runs import OutboxMessage
from distgate.pipelines import split_topic


@dataclass(frozen=True)
class StageTime:
    """A stage of one run: when it began to work and ended (epoch seconds), and its own status (its messages carry the
    run's, which never gets better again)."""

    suffix: str
    state: str
    status: str
    began: float
    ended: float | None

    @property
    def seconds(self) -> float | None:
        return None if self.ended is None else self.ended - self.began

    def closed(self, at: float, status: str) -> StageTime:
        """The stage as its last message will have it; one that is complete stays as it is."""
        return self if self.ended is not None else replace(self, state="complete", status=status, ended=at)

    def row(self) -> dict[str, str]:
        """For a table: stage, status, seconds with one decimal."""
        seconds = "" if self.seconds is None else f"{self.seconds:.1f}"
        return {
            "stage": self.suffix,
            "status": self.status if self.state == "complete" else self.state,
            "seconds": seconds,
        }


def stage_times(messages: Iterable[OutboxMessage], build_id: str, statuses: Mapping[str, str]) -> list[StageTime]:
    """The stages in the messages of one build ID, in their order, without the pipeline's own.

    ``statuses`` are the statuses of stages that test, by suffix (RunFacts.statuses).
    """
    before, times = "SUCCESS", []
    for stage in _message_times(messages, build_id):
        status = statuses.get(stage.suffix, "SUCCESS")
        times.append(replace(stage, status=status) if stage.status == before else stage)
        before = stage.status
    return times


def _message_times(messages: Iterable[OutboxMessage], build_id: str) -> list[StageTime]:
    times: dict[str, StageTime] = {}
    for message in messages:
        suffix, _, state = split_topic(message.topic)[1].rpartition(".")
        if not suffix or message.body["build_id"] != build_id:
            continue
        before = times.get(suffix)
        began = message.created_at if before is None or state == "running" else before.began
        ended = message.created_at if state == "complete" else None
        times[suffix] = StageTime(suffix, state, message.body["status"], began, ended)
    return list(times.values())
