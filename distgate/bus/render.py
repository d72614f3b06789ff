"""Rendering: the facts of a run and a row of the stage table become the body of a message, exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distgate.errors import ConfigurationError
from distgate.pipelines import CONSTANTS, STAGES, Pipeline, Stage, Status, topic_of
from distgate_messages.fields import BASE_FIELDS

#: Fields that no message may leave empty (docs/reference-messages.md).
NEVER_EMPTY = ("branch", "build_id", "build_url", "namespace", "ref", "repo", "rev", "status", "topic", "username")


class Facts(BaseModel):
    """What is known of a run when a message is sent. Unknown values stay empty; the table has the placeholders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pipeline: Pipeline = "allpackages"
    suffix: str = Field("", description="Middle of the topic, such as image.test.smoke; empty for the last message")
    state: str = "complete"
    main_topic: str = "org.centos.prod"
    status: Status = "SUCCESS"
    CI_NAME: str = Field("distgate", description="Who speaks: the name of the job or deployment")
    build_id: str
    build_url: str
    namespace: str
    repo: str
    rev: str
    branch: str
    username: str = Field("", description="The committer; the Atomic pipeline always says fedora-atomic")
    nvr: str = ""
    original_spec_nvr: str = ""
    compose_rev: str = ""
    compose_url: str = ""
    image_name: str = ""
    image_url: str = ""
    package_url: str = ""
    type: str = "qcow2"


def parse_facts(document: Any) -> Facts:
    """Facts from a parsed JSON file; ConfigurationError names the first field that is wrong."""
    try:
        facts = Facts.model_validate(document)
        facts.model_dump_json()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigurationError(
            f"the facts do not fit: {where}: {first['msg']}", hint="see docs/messages.md"
        ) from error
    except ValueError as error:  # JSON can spell half a character, and no message can hold one
        raise ConfigurationError(
            "the facts do not fit: half of a surrogate pair", hint="see docs/messages.md"
        ) from error
    return facts


def stage_of(facts: Facts) -> Stage:
    """The table's row for these facts. Raises ConfigurationError for a suffix or state that is never sent."""
    stages = STAGES[facts.pipeline]
    if facts.suffix not in stages:
        suffixes = ", ".join(repr(suffix) for suffix in stages)
        raise ConfigurationError(
            f"no {facts.pipeline} stage has the suffix {facts.suffix!r}", hint=f"known: {suffixes}"
        )
    stage = stages[facts.suffix]
    if facts.state not in stage.states:
        raise ConfigurationError(
            f"{facts.suffix or 'the pipeline'} has no state {facts.state!r}", hint=f"known: {', '.join(stage.states)}"
        )
    return stage


def render(facts: Facts) -> dict[str, str]:
    """The flat body of the message: every value a string, exactly the contract's fields.

    Raises ConfigurationError when a field that must never be empty is empty.
    """
    stage = stage_of(facts)
    atomic = facts.pipeline == "atomic"
    body: dict[str, str] = {name: str(getattr(facts, name, "")) for name in BASE_FIELDS} | dict(CONSTANTS)
    body["topic"] = topic_of(facts.pipeline, facts.suffix, facts.state, facts.main_topic)
    body["ref"] = f"fedora/{facts.branch}/x86_64/atomic-host" if atomic else "x86_64"
    body["username"] = "fedora-atomic" if atomic else facts.username
    early = stage.early.get(facts.state, {})
    body |= {name: early.get(name, getattr(facts, name)) for name in stage.fields_of(facts.state)}
    _refuse_empty(body, facts)
    return body


def msg_json(body: Mapping[str, str]) -> str:
    """The compact sorted dump of a body, which fedmsg carried as ``msgJson``."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _refuse_empty(body: Mapping[str, str], facts: Facts) -> None:
    empty = [name for name in NEVER_EMPTY if not body[name]]
    if empty:
        raise ConfigurationError(
            f"{body['topic']} must not leave {', '.join(empty)} empty", hint="see docs/messages.md"
        )


def topics(pipeline: Pipeline, main_topic: str = "org.centos.prod") -> list[str]:
    """Every topic of a pipeline, in the table's order."""
    return [topic_of(pipeline, s.suffix, state, main_topic) for s in STAGES[pipeline].values() for state in s.states]
