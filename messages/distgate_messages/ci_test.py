"""The dialect in which Fedora's CI systems speak of builds: ``<main>.ci.koji-build.test.<state>``.

The schemas are written anew from the dialect's public description, version 1.x; a consumer of it reads ours as any
other system's. One class per state, since each has fields of its own.
"""

from __future__ import annotations

from typing import Any, ClassVar

from fedora_messaging import message

CATEGORIES = (
    "functional",
    "integration",
    "interoperability",
    "static-analysis",
    "system",
    "validation",
    "performance",
)
RESULTS = ("passed", "failed", "info", "needs_inspection", "not_applicable")

_TEXT = {"type": "string", "minLength": 1}
_URL = {"type": "string", "format": "uri", "pattern": "^[a-z]+://"}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    # Fields that we do not know are none of our business: the dialect grows.
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required)}


_CONTACT = _object(
    {"name": _TEXT, "team": _TEXT, "docs": _URL, "email": {"type": "string", "pattern": "^[^@ ]+@[^@ ]+$"}},
    {"url": _URL, "irc": _TEXT, "slack": _TEXT, "version": _TEXT},
)
_RUN = _object({"url": _URL, "log": _TEXT}, {"log_raw": _TEXT, "log_stream": _TEXT, "rebuild": _TEXT, "debug": _TEXT})
_BUILD = _object(
    {
        "type": {"type": "string", "enum": ["koji-build", "brew-build"]},
        "id": {"type": "integer", "minimum": 1},
        "component": _TEXT,
        "issuer": _TEXT,
        "scratch": {"type": "boolean"},
        "nvr": _TEXT,
    },
    {"source": _TEXT, "baseline": _TEXT, "dependencies": {"type": "array", "items": _TEXT}},
)
_PIPELINE = _object({"id": _TEXT, "name": _TEXT}, {"build": _TEXT, "stage": _object({"name": _TEXT})})
_SYSTEM = _object({"os": _TEXT, "provider": _TEXT, "architecture": _TEXT}, {"variant": _TEXT, "label": _TEXT})
_TEST = {"category": {"type": "string", "enum": list(CATEGORIES)}, "namespace": _TEXT, "type": _TEXT}
_ABOUT_TEST = {"docs": _URL, "label": {"type": "array", "items": _TEXT}, "scenario": _TEXT, "xunit": _TEXT}
_RESULT = {"result": {"type": "string", "enum": list(RESULTS)}}
_AFTER = {"output": _TEXT, "runtime": {"type": "integer", "minimum": 0}}


def _schema(state: str, description: str, test: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    fields = {
        "contact": _CONTACT,
        "run": _RUN,
        "artifact": _BUILD,
        "pipeline": _PIPELINE,
        "test": test,
        "generated_at": {"type": "string", "format": "date-time"},
        "version": {"type": "string", "pattern": "^1\\."},
        **more,
    }
    return {
        "id": f"http://distgate/schemas/ci-koji-build-test-{state}-v1.json",
        "$schema": "http://json-schema.org/draft-04/schema#",
        "description": description,
        **_object(fields, {"note": _TEXT, "notification": {"type": "object"}}),
    }


class BuildTestMessage(message.Message):
    """One state of the tests of one build. Not published itself: each state's class has its schema."""

    state: ClassVar[str] = ""

    @property
    def app_name(self) -> str:
        return "distgate"

    @property
    def summary(self) -> str:
        """One sentence, such as ``bash-5.2-1.fc41: functional tests complete, passed``."""
        test = self.body["test"]
        outcome = f", {test['result']}" if "result" in test else ""
        return f"{self.body['artifact']['nvr']}: {test['category']} tests {self.state}{outcome}"

    def __str__(self) -> str:
        reason = self.body.get("error", {}).get("reason") or self.body.get("note", "")
        return f"{self.summary}\n{reason}\nRun: {self.url}\n"

    @property
    def url(self) -> str:
        return str(self.body["run"]["url"])

    @property
    def agent_name(self) -> str:
        return str(self.body["artifact"]["issuer"])

    @property
    def usernames(self) -> list[str]:
        return [str(self.body["artifact"]["issuer"])]

    @property
    def packages(self) -> list[str]:
        return [str(self.body["artifact"]["component"])]


class BuildTestQueuedV1(BuildTestMessage):
    """The build exists, and its tests will begin."""

    state: ClassVar[str] = "queued"
    body_schema: ClassVar[dict[str, Any]] = _schema(
        state, "Tests of a build are queued", _object(_TEST, _ABOUT_TEST), {}
    )


class BuildTestRunningV1(BuildTestMessage):
    """The tests of the build have begun."""

    state: ClassVar[str] = "running"
    body_schema: ClassVar[dict[str, Any]] = _schema(
        state, "Tests of a build have begun", _object(_TEST, _ABOUT_TEST), {}
    )


class BuildTestCompleteV1(BuildTestMessage):
    """The build was tested, and this is the result."""

    state: ClassVar[str] = "complete"
    body_schema: ClassVar[dict[str, Any]] = _schema(
        state,
        "Tests of a build have a result",
        _object({**_TEST, **_RESULT}, {**_ABOUT_TEST, **_AFTER}),
        {"system": {"type": "array", "items": _SYSTEM}},
    )


class BuildTestErrorV1(BuildTestMessage):
    """The tests of the build have no result, and why."""

    state: ClassVar[str] = "error"
    body_schema: ClassVar[dict[str, Any]] = _schema(
        state,
        "Tests of a build could not be finished",
        _object(_TEST, _ABOUT_TEST),
        {"error": _object({"reason": _TEXT}, {"issue_url": _URL})},
    )


#: The class of each state.
CLASSES: dict[str, type[BuildTestMessage]] = {
    kind.state: kind for kind in (BuildTestQueuedV1, BuildTestRunningV1, BuildTestCompleteV1, BuildTestErrorV1)
}
