"""Triage: rules in order, each with a name and a sentence; the first that speaks decides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from distgate.change import Change, MalformedMessage, Push, UnrelatedMessage, normalise
from distgate.settings import Settings

Verb = Literal["queued", "ignored", "shed", "rejected"]


@dataclass(frozen=True)
class Decision:
    """What becomes of a message: ``change`` is None when no commit could be read."""

    decision: Verb
    reason: str
    rule: str
    pipeline: str = "allpackages"
    change: Change | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that ``distgate explain --json`` prints (HOUSE, "Interfaces that others hold on to")."""
        identity = ("namespace", "repo", "rev", "branch", "username")
        change = {name: getattr(self.change, name) for name in identity} if self.change else None
        return {
            "decision": self.decision,
            "reason": self.reason,
            "rule": self.rule,
            "pipeline": self.pipeline,
            "change": change,
        }


@dataclass(frozen=True)
class Rule:
    """A named rule: ``objection`` is the reason for which it ignores a push, or None to let it pass."""

    name: str
    objection: Callable[[Push, Settings], str | None]


def _namespace(push: Push, settings: Settings) -> str | None:
    if push.change.namespace in settings.namespaces:
        return None
    return f"namespace {push.change.namespace} is not tested, only {', '.join(settings.namespaces)}"


def _fork(push: Push, settings: Settings) -> str | None:
    return f"the push went to a fork ({push.fork})" if push.fork else None


def _branch(push: Push, settings: Settings) -> str | None:
    if any(fnmatchcase(push.change.branch, pattern) for pattern in settings.branches):
        return None
    return f"branch {push.change.branch} is not watched, only {', '.join(settings.branches)}"


RULES: tuple[Rule, ...] = (
    Rule("namespace", _namespace),
    Rule("fork", _fork),
    Rule("branch", _branch),
)


def decide(topic: str, body: Any, settings: Settings) -> Decision:
    """The decision about one message; ``rejected`` when it cannot be read, never an exception."""
    try:
        push = normalise(topic, body)
    except UnrelatedMessage as other:
        return Decision("ignored", other.message, "topic")
    except MalformedMessage as bad:
        return Decision("rejected", str(bad), "malformed")
    for rule in RULES:
        reason = rule.objection(push, settings)
        if reason is not None:
            return Decision("ignored", reason, rule.name, change=push.change)
    return Decision("queued", f"{push.change.title} is tested", "accepted", change=push.change)
