"""The rules of triage: a table in order, each with a name, a sentence and a pure predicate.

distgate.changes.triage asks them, docs/triage.md is made from them. A rule about earlier changes asks a PushHistory,
which the intake feeds from the ledger; without one, that rule is not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any, Literal, Protocol

from distgate.changes.change import (
    Change,
    MalformedMessage,
    Push,
    UnrelatedMessage,
    deletes_branch,
    normalise,
    speaks_of_push,
    unwrap,
)
from distgate.changes.package_lists import list_for
from distgate.pipelines import Pipeline
from distgate.settings import Settings

Verdict = Literal["queued", "ignored", "shed", "rejected"]
#: What a rule looks at: the message before it is read, the change, what the ledger knows, the push as a whole.
Asks = Literal["message", "change", "ledger", "push"]

#: The rule of a queued change that waits for a newer commit of its push.
SETTLING = "settling"
#: The rule of a queued change that is tested.
ACCEPTED = "accepted"
HOUR = 3600.0


@dataclass(frozen=True)
class RecordedDecision:
    """The ledger's entry about a change."""

    decision: str
    rule: str
    seen: int


class PushHistory(Protocol):
    """The earlier changes of one pipeline."""

    def recorded(self, change: Change) -> RecordedDecision | None:
        """The decision about exactly this change, or None."""

    def newer(self, change: Change, within: float) -> str | None:
        """The newer commit of the same branch: the latest that came after this one, or that a push named as its
        head up to ``within`` seconds before."""

    def accepted(self, seconds: float, like: Change | None = None) -> int:
        """Changes that were accepted in the last ``seconds``, of all packages or of the package of ``like``."""


@dataclass(frozen=True)
class TriageInput:
    """One message to decide about, for one pipeline. ``body`` may be anything."""

    topic: str
    body: Any
    settings: Settings
    pipeline: Pipeline = "allpackages"
    history: PushHistory | None = None

    @cached_property
    def push(self) -> Push:
        """The message as a push; raises UnrelatedMessage or MalformedMessage."""
        return normalise(self.topic, self.body)

    @property
    def change(self) -> Change:
        return self.push.change


@dataclass(frozen=True)
class Rule:
    """A named rule: ``objection`` is the reason for which it stops a message, or None to let it pass."""

    name: str
    sentence: str
    objection: Callable[[TriageInput], str | None]
    decision: Verdict = "ignored"
    asks: Asks = "change"


@dataclass(frozen=True)
class Unreadable:
    """In place of a body that was no JSON."""

    reason: str


def _topic(triage: TriageInput) -> str | None:
    try:
        topic, _ = unwrap(triage.topic, triage.body)
    except MalformedMessage:
        topic = triage.topic
    return None if speaks_of_push(topic) else f"topic {topic} does not speak of a push"


def _deleted(triage: TriageInput) -> str | None:
    try:
        deleted = deletes_branch(*unwrap(triage.topic, triage.body))
    except MalformedMessage:
        return None
    return "the push deleted its branch: there is no commit to test" if deleted else None


def _malformed(triage: TriageInput) -> str | None:
    if isinstance(triage.body, Unreadable):
        return triage.body.reason
    try:
        triage.push  # noqa: B018 - reading it is the question
    except (MalformedMessage, UnrelatedMessage) as error:
        return str(error)
    return None


def _namespace(triage: TriageInput) -> str | None:
    watched = triage.settings.namespaces
    if triage.change.namespace in watched:
        return None
    return f"namespace {triage.change.namespace} is not tested, only {', '.join(watched)}"


def _fork(triage: TriageInput) -> str | None:
    return f"the push went to a fork ({triage.push.fork})" if triage.push.fork else None


def _branch(triage: TriageInput) -> str | None:
    watched = triage.settings.branches_of(triage.pipeline)
    if _matches(triage.change.branch, watched):
        return None
    return f"branch {triage.change.branch} is not watched, only {', '.join(watched)}"


def _package(triage: TriageInput) -> str | None:
    settings, repo = triage.settings, triage.change.repo
    if not _matches(repo, settings.include_packages):
        return f"package {repo} is not watched, only {', '.join(settings.include_packages)}"
    if _matches(repo, settings.exclude_packages):
        return f"package {repo} is excluded by DISTGATE_EXCLUDE_PACKAGES"
    return _unlisted(triage) if triage.pipeline == "atomic" else None


def _unlisted(triage: TriageInput) -> str | None:
    directory, change = triage.settings.package_lists, triage.change
    if directory is None:
        return "no package list says what Atomic Host is made of (DISTGATE_PACKAGE_LISTS)"
    packages = list_for(directory, change.branch)
    if packages is None:
        return f"there is no package list of branch {change.branch} in {directory}"
    return None if packages.holds(change.repo) else f"package {change.repo} is not in the list {packages.path}"


def _duplicate(triage: TriageInput) -> str | None:
    assert triage.history is not None  # noqa: S101 - asked only where there is one
    recorded = triage.history.recorded(triage.change)
    if recorded is None or _is_reopened(recorded, triage.push):
        return None
    answer = f"{recorded.decision}, rule {recorded.rule}"
    return f"{triage.change.title} was answered before ({answer}); seen {recorded.seen} times"


def _is_reopened(recorded: RecordedDecision, push: Push) -> bool:
    """Whether a recorded decision may be taken anew.

    A fork's commit that is merged as it is, or a branch that was not watched then: the change itself has no answer
    yet. A commit that was superseded, or waits, and is now named as the head of a push: it must have one.
    """
    if recorded.decision == "ignored" and recorded.rule != "superseded":
        return True
    return push.head and recorded.rule in ("superseded", SETTLING)


def _superseded(triage: TriageInput) -> str | None:
    assert triage.history is not None  # noqa: S101 - asked only where there is one
    settles = triage.settings.push_settles
    if triage.push.head or not settles:
        return None
    newer = triage.history.newer(triage.change, settles)
    return f"{newer[:7]} is newer on {triage.change.branch}: a push is tested at its head" if newer else None


def _shed(triage: TriageInput) -> str | None:
    assert triage.history is not None  # noqa: S101 - asked only where there is one
    settings, change = triage.settings, triage.change
    per_package, overall = settings.hourly_cap_per_package, settings.hourly_cap
    if per_package and triage.history.accepted(HOUR, change) >= per_package:
        return (
            f"{per_package} changes of {change.repo} were accepted within the hour, which is the cap for one package"
        )
    if overall and triage.history.accepted(HOUR) >= overall:
        return f"{overall} changes were accepted within the hour, which is the cap"
    return None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


#: In the order in which they are asked; the first objection decides.
RULES: tuple[Rule, ...] = (
    Rule("topic", "The message is about a push: its topic ends in git.receive.", _topic, asks="message"),
    Rule("deleted", "The push left a commit: it did not delete its branch.", _deleted, asks="message"),
    Rule(
        "malformed",
        "The message names one commit: namespace, repo, 40 digits of rev, branch.",
        _malformed,
        "rejected",
        "message",
    ),
    Rule("namespace", "The namespace is tested.", _namespace),
    Rule("fork", "The push went to the package's own repository, not to a fork.", _fork),
    Rule("branch", "The branch is watched.", _branch),
    Rule("package", "The package is watched; for Atomic Host, the branch's package list names it.", _package),
    Rule("duplicate", "The change was not answered before.", _duplicate, asks="ledger"),
    Rule("superseded", "The commit is the head of its push.", _superseded, asks="push"),
    Rule("shed", "The hourly caps have room, overall and for the package.", _shed, "shed", "push"),
)
