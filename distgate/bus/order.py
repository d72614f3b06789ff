"""The contract's order: which messages a run may send after which, and which it owes for its verdict."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distgate.pipelines import STAGES, STATUS_ORDER, Pipeline, split_topic

#: States that a change has instead of a run.
NO_RUN = ("ignored", "ignore")
STATES = ("queued", "running", "complete")
GOOD = ("SUCCESS", "UNSTABLE")


@dataclass(frozen=True)
class SentMessage:
    """One message: its full topic, and the pipeline's status at that time."""

    topic: str
    status: str

    @property
    def pipeline(self) -> Pipeline:
        return split_topic(self.topic)[0]

    @property
    def suffix(self) -> str:
        """The stage; empty for the pipeline itself."""
        return self.name.rpartition(".")[0]

    @property
    def state(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def name(self) -> str:
        """Stage and state, such as ``image.complete``."""
        return split_topic(self.topic)[1]

    @property
    def last(self) -> bool:
        """Whether it is the last message of a run."""
        return self.name == "complete"


def faults_of(messages: Sequence[SentMessage], ended: bool, pipeline: Pipeline = "allpackages") -> list[str]:
    """What is wrong with the messages of one run of ``pipeline`` in the order of their sending; ``ended`` says that
    it is over."""
    unknown = [f"{message.topic} is no message of a run" for message in messages if not _known(message)]
    if unknown:
        return unknown
    if any(message.pipeline != pipeline for message in messages):
        return ["it speaks for the other pipeline"]
    faults = [fault for pair in itertools.pairwise(messages) for fault in _step(*pair)]
    return [*faults, *_verdict(messages, ended), *_gaps(messages)]


def _known(message: SentMessage) -> bool:
    stage = STAGES[message.pipeline].get(message.suffix)
    return (
        stage is not None
        and message.state in stage.states
        and message.state not in NO_RUN
        and message.status in STATUS_ORDER
    )


def _step(before: SentMessage, after: SentMessage) -> Iterator[str]:
    if before.last:
        yield f"{after.name} was sent after the last message"
    elif _place(after) == _place(before):
        yield f"{after.name} was sent twice"
    elif _place(after) < _place(before):
        yield f"{after.name} was sent after {before.name}: out of order"
    elif after.suffix != before.suffix and before.state != "complete":
        yield f"{after.name} was sent before {before.suffix}.complete"
    if STATUS_ORDER[after.status] < STATUS_ORDER[before.status]:
        yield f"{after.name} says {after.status} after {before.name} said {before.status}"
    elif before.status not in GOOD and (after.status != before.status or not after.last):
        yield f"{after.name} {after.status} followed {before.name} {before.status}"


def _verdict(messages: Sequence[SentMessage], ended: bool) -> Iterator[str]:
    verdicts = sum(message.last for message in messages)
    if ended and verdicts != 1:
        yield f"it ended and has {verdicts or 'no'} verdict{'s' if verdicts else ''}"
    if not ended and verdicts:
        yield "it has its verdict and is not ended"
    if not (messages and messages[-1].last and messages[-1].status in GOOD):
        return
    seen = {message.suffix for message in messages}
    for stage in STAGES[messages[-1].pipeline].values():
        if stage.owed and stage.suffix not in seen:
            yield f"it ended as {messages[-1].status} without a message of {stage.suffix}"


def _gaps(messages: Sequence[SentMessage]) -> Iterator[str]:
    """A stage that passed sent all of its messages; one that was broken off may have sent fewer."""
    names = {message.name for message in messages}
    for done in messages:
        if done.state == "complete" and done.status in GOOD and not done.last:
            for state in STAGES[done.pipeline][done.suffix].states:
                if state not in NO_RUN and f"{done.suffix}.{state}" not in names:
                    yield f"{done.suffix}.{state} is missing"


def _place(message: SentMessage) -> tuple[int, int]:
    return list(STAGES[message.pipeline]).index(message.suffix), STATES.index(message.state)
