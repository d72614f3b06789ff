"""Triage: the rules of distgate.changes.rules are asked in order; the first that objects decides."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from distgate.changes.change import Change
from distgate.changes.rules import ACCEPTED, RULES, SETTLING, PushHistory, Rule, TriageInput, Unreadable, Verdict
from distgate.pipelines import Pipeline
from distgate.settings import Settings

Outcome = Literal["passed", "objected", "not-asked", "not-reached"]

#: What the JSON says of a change; the summary is for people.
IDENTITY = ("namespace", "repo", "rev", "branch", "username")


@dataclass(frozen=True)
class Step:
    """One rule's answer: its sentence, or the reason for which it objected or was not asked."""

    rule: str
    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class Decision:
    """The decision about a message: ``change`` is None when it names no commit that could be read.

    ``head`` is True when the message named the commit as the head of its push. ``trace`` has a step for every rule.
    """

    decision: Verdict
    reason: str
    rule: str
    pipeline: Pipeline = "allpackages"
    change: Change | None = None
    head: bool = False
    trace: tuple[Step, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The object that ``distgate explain --json`` prints; docs/explain.schema.json is its schema."""
        change = {name: getattr(self.change, name) for name in IDENTITY} if self.change else None
        return {
            "decision": self.decision,
            "reason": self.reason,
            "rule": self.rule,
            "pipeline": self.pipeline,
            "change": change,
            "trace": [vars(step) for step in self.trace],
        }


def decide(
    topic: str,
    body: Any,
    settings: Settings,
    history: PushHistory | None = None,
    pipeline: Pipeline = "allpackages",
) -> Decision:
    """The decision about one message; ``rejected`` when it cannot be read.

    With a ``history``, a commit that may have a newer one behind it is queued under the rule "settling":
    ``decide_settled`` decides about it when its push has settled. Without one, what needs the ledger is not asked.
    Raises InfrastructureError when the ledger or a package list cannot be read.
    """
    triage = TriageInput(topic, body, settings, pipeline, history)
    trace = tuple(_ask(triage))
    last = next((step for step in trace if step.outcome == "objected"), None)
    if last is None:
        return replace(_passed(triage), trace=trace)
    rule = next(rule for rule in RULES if rule.name == last.rule)
    verdict = Decision(rule.decision, last.sentence, rule.name, pipeline, trace=trace)
    return verdict if rule.asks == "message" else replace(verdict, change=triage.change, head=triage.push.head)


def decide_text(text: str | bytes, settings: Settings, pipeline: Pipeline = "allpackages") -> Decision:
    """The decision about a message as it lies in a file: JSON, enveloped or bare; no ledger is asked."""
    return decide("", parse(text), settings, pipeline=pipeline)


def parse(text: str | bytes) -> Any:
    """The JSON in a text; an Unreadable, which the rule "malformed" rejects, when it is none."""
    try:
        # With a byte order mark or without: editors differ.
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text)
    except (ValueError, RecursionError) as error:
        return Unreadable(f"the message is not JSON: {error}"[:300])


def narrate(decision: Decision) -> Iterator[str]:
    """The decision and its trace for people, line by line."""
    if decision.change:
        yield f"change:   {decision.change.key} by {decision.change.username}"
    yield from (f"decision: {decision.decision}", f"rule:     {decision.rule}", f"reason:   {decision.reason}", "")
    for step in decision.trace:
        yield f"{step.outcome.replace('-', ' '):<12} {step.rule:<11} {step.sentence}"


def decide_settled(
    change: Change, settings: Settings, history: PushHistory, pipeline: Pipeline = "allpackages"
) -> Decision:
    """The decision about a change whose push has settled: queued, ignored as superseded, or shed."""
    triage = TriageInput("", {"commit": change.model_dump()}, settings, pipeline, history)
    for rule in RULES:
        reason = rule.objection(triage) if rule.asks == "push" else None
        if reason is not None:
            return Decision(rule.decision, reason, rule.name, pipeline, change)
    return _accepted(triage)


def _ask(triage: TriageInput) -> Iterator[Step]:
    reached = True
    for rule in RULES:
        unasked = _not_asked(rule, triage) if reached else None
        if not reached or unasked:
            outcome: Outcome = "not-asked" if unasked else "not-reached"
            yield Step(rule.name, outcome, f"{unasked or ''}{rule.sentence}")
            continue
        reason = rule.objection(triage)
        reached = reason is None
        yield Step(rule.name, "passed" if reason is None else "objected", reason or rule.sentence)


def _not_asked(rule: Rule, triage: TriageInput) -> str | None:
    if rule.asks in ("ledger", "push") and triage.history is None:
        return "needs the ledger: "
    if rule.asks == "push" and _waits(triage):
        return "asked once the push has settled: "
    return None


def _waits(triage: TriageInput) -> bool:
    return triage.history is not None and not triage.push.head and triage.settings.push_settles > 0


def _passed(triage: TriageInput) -> Decision:
    if not _waits(triage):
        return _accepted(triage)
    reason = f"{triage.change.title} waits {triage.settings.push_settles:g} s for a newer commit of its push"
    return Decision("queued", reason, SETTLING, triage.pipeline, triage.change)


def _accepted(triage: TriageInput) -> Decision:
    reason = f"{triage.change.title} is tested"
    return Decision("queued", reason, ACCEPTED, triage.pipeline, triage.change, triage.push.head)
