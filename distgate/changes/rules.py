"""The rules of triage: a table in order, each with a name, a sentence and a pure predicate.

distgate.changes.triage asks them, docs/triage.md is made from them. A rule that needs to know what came before asks a
History, which the intake feeds from the ledger; where nobody has one, that rule is not asked.
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
    """What stands in the ledger about a change."""

    decision: str
    rule: str
    seen: int


class History(Protocol):
    """What the rules may ask about the past of one pipeline."""

    def known(self, change: Change) -> RecordedDecision | None:
        """The decision that stands about exactly this change, or None."""

    def newer(self, change: Change, within: float) -> str | None:
        """The newer commit of the same branch: the latest that came after this one, or that a push named as its
        head up to ``within`` seconds before."""

    def accepted(self, seconds: float, like: Change | None = None) -> int:
        """Changes that were accepted in the last ``seconds``, of all packages or of the package of ``like``."""


@dataclass(frozen=True)
class TriageInput:
    """One message that is judged, for one pipeline. ``body`` may be anything."""

    topic: str
    body: Any
    settings: Settings
    pipeline: Pipeline = "allpackages"
    history: History | None = None

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
    """Stands for a body that was no JSON."""

    reason: str


def _topic(matter: TriageInput) -> str | None:
    try:
        topic, _ = unwrap(matter.topic, matter.body)
    except MalformedMessage:
        topic = matter.topic
    return None if speaks_of_push(topic) else f"topic {topic} does not speak of a push"


def _deleted(matter: TriageInput) -> str | None:
    try:
        gone = deletes_branch(*unwrap(matter.topic, matter.body))
    except MalformedMessage:
        return None
    return "the push deleted its branch: there is no commit to test" if gone else None


def _malformed(matter: TriageInput) -> str | None:
    if isinstance(matter.body, Unreadable):
        return matter.body.reason
    try:
        matter.push  # noqa: B018 - reading it is the question
    except (MalformedMessage, UnrelatedMessage) as error:
        return str(error)
    return None


def _namespace(matter: TriageInput) -> str | None:
    watched = matter.settings.namespaces
    if matter.change.namespace in watched:
        return None
    return f"namespace {matter.change.namespace} is not tested, only {', '.join(watched)}"


def _fork(matter: TriageInput) -> str | None:
    return f"the push went to a fork ({matter.push.fork})" if matter.push.fork else None


def _branch(matter: TriageInput) -> str | None:
    watched = matter.settings.branches_of(matter.pipeline)
    if _matches(matter.change.branch, watched):
        return None
    return f"branch {matter.change.branch} is not watched, only {', '.join(watched)}"


def _package(matter: TriageInput) -> str | None:
    own, repo = matter.settings, matter.change.repo
    if not _matches(repo, own.include_packages):
        return f"package {repo} is not watched, only {', '.join(own.include_packages)}"
    if _matches(repo, own.exclude_packages):
        return f"package {repo} is excluded by DISTGATE_EXCLUDE_PACKAGES"
    return _unlisted(matter) if matter.pipeline == "atomic" else None


def _unlisted(matter: TriageInput) -> str | None:
    directory, change = matter.settings.package_lists, matter.change
    if directory is None:
        return "no package list says what Atomic Host is made of (DISTGATE_PACKAGE_LISTS)"
    found = list_for(directory, change.branch)
    if found is None:
        return f"there is no package list of branch {change.branch} in {directory}"
    return None if found.holds(change.repo) else f"package {change.repo} is not in the list {found.path}"


def _duplicate(matter: TriageInput) -> str | None:
    assert matter.history is not None  # noqa: S101 - asked only where there is one
    known = matter.history.known(matter.change)
    if known is None or _is_reopened(known, matter.push):
        return None
    return f"{matter.change.title} was answered before ({known.decision}, rule {known.rule}); seen {known.seen} times"


def _is_reopened(known: RecordedDecision, push: Push) -> bool:
    """Whether a decision that stands may be taken anew.

    A fork's commit that is merged as it is, or a branch that was not watched then: the change itself has no answer
    yet. A commit that was passed over, or waits, and is now named as the head of a push: it must have one.
    """
    if known.decision == "ignored" and known.rule != "superseded":
        return True
    return push.head and known.rule in ("superseded", SETTLING)


def _superseded(matter: TriageInput) -> str | None:
    assert matter.history is not None  # noqa: S101 - asked only where there is one
    settles = matter.settings.push_settles
    if matter.push.head or not settles:
        return None
    newer = matter.history.newer(matter.change, settles)
    return f"{newer[:7]} is newer on {matter.change.branch}: a push is tested at its head" if newer else None


def _shed(matter: TriageInput) -> str | None:
    assert matter.history is not None  # noqa: S101 - asked only where there is one
    own, change = matter.settings, matter.change
    mine, every = own.hourly_cap_per_package, own.hourly_cap
    if mine and matter.history.accepted(HOUR, change) >= mine:
        return f"{mine} changes of {change.repo} were accepted within the hour, which is the cap for one package"
    if every and matter.history.accepted(HOUR) >= every:
        return f"{every} changes were accepted within the hour, which is the cap"
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
