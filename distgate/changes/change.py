"""A change: one commit on one branch of one dist-git repository, normalised from a bus message.

A message may be a fedora-messaging body, a fedmsg envelope around it, or a file with either. Two topics speak of
pushes: ``git.receive`` (one message per commit) and ``pagure.git.receive`` (one per push, forks included).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from distgate.errors import ConfigurationError
from distgate.text import printable

#: Longest text of a change; a summary is for people, not a diff.
MAX_TEXT = 300
#: Longest name of an account.
MAX_USER = 128
#: Bytes that a character may take in the parameters of a run: in JSON an emoji takes twelve, and 4 kB are all we use.
_BYTES_EACH = 6
#: Characters that are looked at for one that is kept: the rest may be a terminal's escapes, or ten megabytes.
_SLACK = 8

#: The committer of a message that names none; the contract leaves no username empty.
UNKNOWN = "unknown"

#: End of the topics that speak of a push (git.receive, pagure.git.receive), whatever comes before.
PUSH_TOPICS = (".git.receive",)
_PAGURE = ".pagure.git.receive"

#: No slash and no leading dot or dash: a repository's name becomes a part of paths and addresses.
_NAME_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9._+-]*$"
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\Z")
#: People name the branches of their forks after bugs (rhbz#1234) and accounts; nothing that a shell or a template
#: would read is among what we take.
_BRANCH_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9._/+#@=,-]*$"
_SAFE_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+#@=,-]*\Z")
_REV = re.compile(r"[0-9a-f]{40}\Z")


class MalformedMessage(ConfigurationError):
    """A bus message that does not name its commit; the text names the field."""


class UnrelatedMessage(ConfigurationError):
    """A bus message about something else than a push."""


class Change(BaseModel):
    """The identity of a change (namespace, repo, rev, branch) and who pushed it.

    Strict, small and strings only: a message reaches Prefect's templates through this model alone, so that no
    dictionary of a stranger is ever evaluated there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    namespace: str = Field(description="dist-git namespace, such as rpms", max_length=128, pattern=_NAME_PATTERN)
    repo: str = Field(description="Name of the dist-git repository", max_length=128, pattern=_NAME_PATTERN)
    rev: str = Field(description="Commit, 40 hexadecimal digits", pattern="^[0-9a-f]{40}$")
    branch: str = Field(description="Branch that the commit was pushed to", max_length=128, pattern=_BRANCH_PATTERN)
    username: str = Field("unknown", min_length=1, description="Account of the committer", max_length=MAX_USER)
    summary: str = Field("", description="First line of the commit message", max_length=MAX_TEXT)

    @property
    def key(self) -> str:
        """The identity of the change: the same for every message about it."""
        return f"{self.namespace}/{self.repo}@{self.branch}#{self.rev}"

    @property
    def title(self) -> str:
        """Readable in a list: ``dos2unix f41 7a1b2c3``."""
        return f"{self.repo} {self.branch} {self.rev[:7]}"


class Push(BaseModel):
    """A normalised push message: the change, and the message's facts for triage.

    ``head`` says that the message names the last commit of a push (pagure.git.receive); git.receive has one message
    for each commit and does not say which is the last.
    """

    model_config = ConfigDict(frozen=True)

    topic: str
    change: Change
    fork: str = ""
    head: bool = False


def normalise(topic: str, body: Any) -> Push:
    """The change that a message speaks of. ``topic`` may be empty when ``body`` is an envelope that has one.

    Raises UnrelatedMessage for another topic, MalformedMessage with the field's name.
    Unknown fields are tolerated and dropped, a patch among them.
    """
    topic, body = unwrap(topic, body)
    if not speaks_of_push(topic):
        raise UnrelatedMessage(f"topic {topic} does not speak of a push")
    return _from_pagure(topic, body) if _is_pagure(topic, body) else _from_commit(topic, body)


def unwrap(topic: str, body: Any) -> tuple[str, Mapping[str, Any]]:
    """Take a fedmsg envelope (``topic``, ``msg``) or a dumped fedora-messaging message (``topic``, ``body``) off.

    The topic is the given one, else the envelope's, else the body's; as text that can be printed.
    """
    if not isinstance(body, Mapping):
        raise MalformedMessage(
            f"the message is a {type(body).__name__}, not an object", hint="expected a JSON object"
        )
    topic_text = topic or body.get("topic")
    inner = next((body[name] for name in ("msg", "body") if isinstance(body.get(name), Mapping)), body)
    return _text(topic_text or inner.get("topic"), 255), inner


def speaks_of_push(topic: str) -> bool:
    """Whether messages of this topic name a commit; a message without any topic may."""
    return not topic or topic.endswith(PUSH_TOPICS)


def deletes_branch(topic: str, body: Mapping[str, Any]) -> bool:
    """Whether an unwrapped push message is about the removal of its branch, which leaves no commit to test."""
    return _is_pagure(topic, body) and body.get("end_commit") == "0" * 40


def _is_pagure(topic: str, body: Mapping[str, Any]) -> bool:
    return topic.endswith(_PAGURE) or (not topic and "repo" in body and "end_commit" in body)


def _from_commit(topic: str, body: Mapping[str, Any]) -> Push:
    # The documents' key=value rendering is the commit alone, without the object around it.
    commit = body.get("commit") if "commit" in body or "rev" not in body else body
    if not isinstance(commit, Mapping):
        raise MalformedMessage("the message has no commit", hint="git.receive carries an object named commit")
    change = Change(
        namespace=_name(commit, "namespace"),
        repo=_name(commit, "repo"),
        rev=_rev(commit, "rev"),
        branch=_branch(commit),
        username=account_of(commit.get("username"), body.get("agent"), commit.get("agent")),
        summary=_text(commit.get("summary"), MAX_TEXT),
    )
    path = commit.get("path")
    fork = _text(path, MAX_TEXT) if isinstance(path, str) and "/forks/" in path else ""
    return Push(topic=topic, change=change, fork=fork)


def _from_pagure(topic: str, body: Mapping[str, Any]) -> Push:
    repo = body.get("repo")
    if not isinstance(repo, Mapping):
        raise MalformedMessage("the message has no repo", hint="pagure.git.receive carries an object named repo")
    change = Change(
        namespace=_name(repo, "namespace"),
        repo=_name(repo, "name"),
        rev=_rev(body, "end_commit"),
        branch=_branch(body),
        username=account_of(body.get("agent")),
        summary="",
    )
    fullname = _text(repo.get("fullname"), MAX_TEXT)
    fork = (fullname or change.repo) if fullname.startswith("forks/") or repo.get("parent") else ""
    return Push(topic=topic, change=change, fork=fork, head=True)


def _required(source: Mapping[str, Any], field: str) -> str:
    value = source.get(field)
    if not isinstance(value, str) or not value:
        raise MalformedMessage(f"the field {field} is missing or not text", hint="the message names no single commit")
    return value


def _name(source: Mapping[str, Any], field: str) -> str:
    value = _required(source, field)
    if len(value) > 128 or not _SAFE_NAME.match(value) or ".." in value:
        raise MalformedMessage(
            f"the field {field} is no name of a dist-git repository: {value[:60]!r}",
            hint="letters, digits and . _ + - are allowed, a leading - or . is not",
        )
    return value


def _rev(source: Mapping[str, Any], field: str) -> str:
    value = _required(source, field)
    if not _REV.match(value):
        raise MalformedMessage(
            f"the field {field} is no commit: {value[:60]!r}", hint="40 hexadecimal digits, please"
        )
    return value


def _branch(source: Mapping[str, Any]) -> str:
    value = _required(source, "branch").removeprefix("refs/heads/")
    if len(value) > 128 or ".." in value or not _SAFE_BRANCH.match(value):
        raise MalformedMessage(f"the field branch is no branch name: {value[:60]!r}", hint="see git-check-ref-format")
    return value


def account_of(*names: Any) -> str:
    """The first of the ``names`` of an account that is not empty, as text that can be printed; else UNKNOWN."""
    return next(filter(None, (_text(name, MAX_USER) for name in names)), UNKNOWN)


def _text(value: Any, limit: int) -> str:
    """Text for people, on one line: it ends in terminals, logs, tables and messages that must be UTF-8."""
    if not isinstance(value, str):
        return ""
    text = printable(value[: limit * _SLACK], newlines=False).strip()[:limit]
    while len(json.dumps(text)) > limit * _BYTES_EACH:
        text = text[: len(text) * 9 // 10]
    return text
