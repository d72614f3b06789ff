"""Runs in the dialect of Fedora's CI systems: ``ci.koji-build.test.*``, one message per state of the whole pipeline.

The dialect speaks of tests of a build, so there is nothing to say before the build exists: a run whose package does
not build is not told here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from distgate.reports.notice import Notice
from distgate.reports.speaker import Speaker

#: The version of the dialect's description that the bodies follow.
VERSION = "1.1.0"
#: Letters in whose place a message is sent, and its state; the end has a rule of its own.
_STATES = {
    ("allpackages", "package", "complete"): "queued",
    ("allpackages", "image", "running"): "running",
    ("atomic", "package", "complete"): "queued",
    ("atomic", "package.test.functional", "running"): "running",
}


def ci_message(notice: Notice, speaker: Speaker) -> tuple[str, dict[str, Any]] | None:
    """The state and the body to send for a notice; None when this dialect has no words for it."""
    state = _state_of(notice)
    if state is None or not notice.nvr or notice.task_id is None:
        return None
    body: dict[str, Any] = {
        "contact": {"name": "distgate", "team": speaker.team, "email": speaker.email, "docs": speaker.docs},
        "run": {"url": notice.build_url, "log": speaker.log_of(notice)},
        "artifact": _artifact(notice, notice.task_id),
        "pipeline": {"id": notice.build_id, "name": f"distgate {notice.pipeline}"},
        "test": {"category": "functional", "namespace": speaker.namespace, "type": f"koji-build.{notice.pipeline}"},
        "generated_at": _moment(notice.created_at),
        "version": VERSION,
    }
    if state == "complete":
        body["test"]["result"] = _result(notice)
        body["system"] = [{"os": f"fedora-{notice.branch}", "provider": "distgate", "architecture": "x86_64"}]
        body["note"] = notice.words
    elif state == "error":
        body["error"] = {"reason": notice.words}
    return state, body


def topic_of(main_topic: str, state: str) -> str:
    """The topic of a state."""
    return f"{main_topic}.ci.koji-build.test.{state}"


def _state_of(notice: Notice) -> str | None:
    if notice.last:
        theirs = notice.status == "FAILURE" and notice.blame in ("package", "tests")
        return "complete" if theirs or notice.status in ("SUCCESS", "UNSTABLE") else "error"
    state = _STATES.get((notice.pipeline, notice.suffix, notice.state))
    return state if notice.status in ("SUCCESS", "UNSTABLE") else None


def _result(notice: Notice) -> str:
    if notice.status == "SUCCESS":
        return "passed" if notice.tested else "not_applicable"
    return "failed"


def _artifact(notice: Notice, task_id: int) -> dict[str, Any]:
    return {
        "type": "koji-build",
        "id": task_id,
        "component": notice.repo,
        "issuer": notice.username,
        "scratch": True,
        "nvr": notice.nvr.removesuffix(".src"),
        "source": f"{notice.namespace}/{notice.repo}#{notice.rev}",
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
