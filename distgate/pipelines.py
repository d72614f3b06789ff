"""The stage table: every message of both pipelines, its topic, its fields and what they hold before they are known.

Source: messages/CONTRACT.md of the project's documents. Each row is one suffix of a topic; ``render`` in
distgate.bus.render turns a row and the facts of a run into a body. Nothing else knows a topic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Pipeline = Literal["allpackages", "atomic"]
#: Both, the first one first.
PIPELINES: tuple[Pipeline, ...] = get_args(Pipeline)
Status = Literal["SUCCESS", "FAILURE", "UNSTABLE", "ABORTED"]

#: From good to bad. A pipeline's status never gets better again.
STATUS_ORDER: Mapping[str, int] = {"SUCCESS": 0, "UNSTABLE": 1, "FAILURE": 2, "ABORTED": 2}

#: The name of the state in which Prefect has a run that did nothing, since another run holds its change.
DUPLICATE = "Duplicate"
HELD = "another run holds this change; again=true tests it once more"
#: That of a run whose tests ran and did not all pass.
UNSTABLE = "Unstable"
#: That of a run that did not get as far, by who is to blame (distgate.errors.Blame): what an operator has to look at
#: is told apart in a list of runs from what is a packager's. A bug is plain Failed, with its traceback in the log.
FAILURES: Mapping[str, str] = {
    "package": "Package failed",
    "tests": "Tests broken",
    "infrastructure": "Infrastructure failed",
    "configuration": "Misconfigured",
    "cancelled": "Aborted",
}

#: What our global limits in Prefect are called: each name begins with one of these, and goes on with whose it is.
KOJI_LIMIT = "koji-"
GUESTS_LIMIT = "guests-"
OSTREE_LIMIT = "ostree-"
#: A server may have others, which are none of ours.
LIMITS = (KOJI_LIMIT, GUESTS_LIMIT, OSTREE_LIMIT)


def status_fact(suffix: str) -> str:
    """The name of the run's fact that holds a stage's own status, when it is not SUCCESS."""
    return f"status of {suffix}"


#: What the original's shell scripts sent for a value that they did not have yet.
QUOTES = "''"

#: In every message of both pipelines.
BASE_FIELDS = (
    "CI_NAME",
    "CI_TYPE",
    "branch",
    "build_id",
    "build_url",
    "message-content",
    "namespace",
    "ref",
    "repo",
    "rev",
    "status",
    "test_guidance",
    "topic",
    "username",
)
NVR_FIELDS = ("nvr", "original_spec_nvr")
CONSTANTS: Mapping[str, str] = {"CI_TYPE": "custom", "message-content": "", "test_guidance": QUOTES}

_UNBUILT = dict.fromkeys(NVR_FIELDS, "")
_TRIGGER = ("queued", "ignored", "ignore")
_ALL = ("queued", "running", "complete")
_WORK = ("running", "complete")


@dataclass(frozen=True)
class Stage:
    """One row: the states that are sent for ``suffix``, the fields beyond the base, and the early values."""

    suffix: str
    states: tuple[str, ...]
    fields: tuple[str, ...] = ()
    early: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bare: tuple[str, ...] = ()
    """States that carry the base fields alone."""

    def fields_of(self, state: str) -> tuple[str, ...]:
        return () if state in self.bare else self.fields


def _rows(*stages: Stage) -> Mapping[str, Stage]:
    return {stage.suffix: stage for stage in stages}


_COMPOSE = (*NVR_FIELDS, "compose_rev", "compose_url")
_IMAGE = (*_COMPOSE, "image_name", "image_url", "type")

STAGES: Mapping[str, Mapping[str, Stage]] = {
    "allpackages": _rows(
        Stage(
            "package", (*_TRIGGER[:2], *_WORK), NVR_FIELDS, dict.fromkeys(("queued", "ignored", "running"), _UNBUILT)
        ),
        Stage("image", _ALL, (*NVR_FIELDS, "type"), {"running": {"type": QUOTES}}),
        Stage("image.test.smoke", _ALL, (*NVR_FIELDS, "type")),
        Stage("package.test.functional", _ALL, NVR_FIELDS),
        Stage("", ("complete",), NVR_FIELDS),
    ),
    "atomic": _rows(
        Stage(
            "package",
            (*_TRIGGER, *_WORK),
            (*NVR_FIELDS, "compose_rev"),
            {
                "running": {**_UNBUILT, "compose_rev": ""},
                "complete": {"compose_rev": ""},
            },
            bare=_TRIGGER,
        ),
        Stage("package.test.functional", _ALL, (*NVR_FIELDS, "package_url")),
        Stage("compose", _WORK, _COMPOSE, {"running": {"compose_rev": QUOTES}}),
        Stage("compose.test.integration", _ALL, _COMPOSE),
        Stage("image", _WORK, _IMAGE, {"running": {"image_name": QUOTES, "image_url": QUOTES}}),
        Stage("image.test.smoke", _WORK, _IMAGE),
        Stage("compose.test.e2e", _ALL, _COMPOSE),
        Stage("", ("complete",), (*NVR_FIELDS, "compose_rev")),
    ),
}

_INFIX = {"allpackages": "allpackages.", "atomic": ""}


def topic_of(pipeline: Pipeline, suffix: str, state: str, main_topic: str) -> str:
    """The full topic of a message, which is also its AMQP routing key."""
    middle = f"{suffix}." if suffix else ""
    return f"{main_topic}.ci.pipeline.{_INFIX[pipeline]}{middle}{state}"


def split_topic(topic: str) -> tuple[Pipeline, str]:
    """The pipeline of a topic that ``topic_of`` made, and its stage and state: ``image.complete``, ``complete``."""
    rest = topic.split(".ci.pipeline.", 1)[-1]
    infix = _INFIX["allpackages"]
    return ("allpackages" if rest.startswith(infix) else "atomic"), rest.removeprefix(infix)
