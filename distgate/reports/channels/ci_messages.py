"""Runs in the dialect of Fedora's CI systems: ``ci.koji-build.test.*``, one message per state of the whole pipeline.

The dialect speaks of tests of a build, so nothing is sent before the build exists: a run whose package does not build
is not reported here.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from fedora_messaging.message import INFO, WARNING

from distgate.bus.amqp import Publisher
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.pipelines import STAGES
from distgate.reports.http import required
from distgate.reports.notice import Refused, RunEvent
from distgate.reports.reporter import ReporterIdentity
from distgate.settings import Settings
from distgate_messages.ci_test import CLASSES

#: The version of the dialect's description that the bodies follow.
VERSION = "1.1.0"


def ci_message(notice: RunEvent, reporter: ReporterIdentity) -> tuple[str, dict[str, Any]] | None:
    """The state and the body to send for a notice; None when this dialect has no message for it."""
    state = _state_of(notice)
    if state is None or not notice.nvr or notice.task_id is None:
        return None
    body: dict[str, Any] = {
        "contact": {"name": "distgate", "team": reporter.team, "email": reporter.email, "docs": reporter.docs},
        "run": {"url": notice.build_url, "log": reporter.log_of(notice)},
        "artifact": _artifact(notice, notice.task_id),
        "pipeline": {"id": notice.build_id, "name": f"distgate {notice.pipeline}"},
        "test": {"category": "functional", "namespace": reporter.namespace, "type": f"koji-build.{notice.pipeline}"},
        "generated_at": _moment(notice.created_at),
        "version": VERSION,
    }
    if state == "complete":
        body["test"]["result"] = _result(notice)
        body["system"] = [{"os": f"fedora-{notice.branch}", "provider": "distgate", "architecture": "x86_64"}]
        body["note"] = notice.headline
    elif state == "error":
        body["error"] = {"reason": notice.headline}
    return state, body


def topic_of(main_topic: str, state: str) -> str:
    """The topic of a state."""
    return f"{main_topic}.ci.koji-build.test.{state}"


def _state_of(notice: RunEvent) -> str | None:
    if notice.last:
        judged = notice.status == "FAILURE" and notice.blame in ("package", "tests")
        return "complete" if judged or notice.status in ("SUCCESS", "UNSTABLE") else "error"
    if notice.status not in ("SUCCESS", "UNSTABLE"):
        return None
    build, following, *_ = STAGES[notice.pipeline]
    return {(build, "complete"): "queued", (following, "running"): "running"}.get((notice.suffix, notice.state))


def _result(notice: RunEvent) -> str:
    if notice.status == "SUCCESS":
        return "passed" if notice.tested else "not_applicable"
    return "failed"


def _artifact(notice: RunEvent, task_id: int) -> dict[str, Any]:
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


#: Names the IDs of these messages apart from those of others; never to be changed.
_MESSAGES = uuid.UUID("9d0c8f5e-0e0b-4b1a-9f7c-3f3a4b0c7a52")


class BuildTestBus:
    """The bus of ``publisher``. It refuses topics that our account may not write, which is a right of its own."""

    name = "ci-messages"

    def __init__(self, publisher: Publisher, reporter: ReporterIdentity) -> None:
        required(reporter.email, "report_email")
        required(reporter.docs, "report_docs")
        self._publisher, self._reporter = publisher, reporter

    def deliver(self, notice: RunEvent) -> bool:
        """Publish the message, if the dialect has one for this notice; its ID is the same whenever it is sent."""
        state_and_body = ci_message(notice, self._reporter)
        if state_and_body is None:
            return False
        state, body = state_and_body
        message = CLASSES[state](
            topic=topic_of(notice.main_topic, state), body=body, severity=INFO if _is_good(body) else WARNING
        )
        message.id = str(uuid.uuid5(_MESSAGES, notice.message_id))
        try:
            self._publisher.publish(message)
        except (InfrastructureError, ConfigurationError):
            raise
        except DistgateError as error:
            raise Refused(error.message) from error
        return True


def _is_good(body: dict[str, object]) -> bool:
    test = body["test"]
    result = test.get("result", "passed") if isinstance(test, dict) else "passed"
    return "error" not in body and result in ("passed", "not_applicable")


def open_channel(settings: Settings) -> BuildTestBus:
    """The channel as the settings describe it. Raises ConfigurationError for what is missing."""
    return BuildTestBus(Publisher(settings.amqp_url, settings.exchange), ReporterIdentity.of(settings))
