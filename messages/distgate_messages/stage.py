"""What the stage messages of both pipelines have in common; the published classes are in a module per pipeline."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from fedora_messaging import message
from fedora_messaging.schema_utils import user_avatar_url

from distgate_messages.fields import STATUSES

#: Base fields that no message leaves empty.
FILLED = ("branch", "build_id", "build_url", "namespace", "ref", "repo", "rev", "topic", "username")


def flat_schema(name: str, description: str, required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, Any]:
    """The JSON schema of a flat body in which every value is text and no other field is known."""
    fields: dict[str, Any] = {field: {"type": "string"} for field in (*required, *optional)}
    fields |= {field: {"type": "string", "minLength": 1} for field in FILLED}
    fields["status"] = {"type": "string", "enum": list(STATUSES)}
    return {
        "id": f"http://distgate/schemas/{name}.json",
        "$schema": "http://json-schema.org/draft-04/schema#",
        "description": description,
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


class StageMessage(message.Message):
    """One stage of one run. Not published itself: a pipeline's class gives it a schema and ``topic_infix``."""

    topic_infix: ClassVar[str] = ".ci.pipeline."

    @property
    def app_name(self) -> str:
        return "distgate"

    @property
    def stage(self) -> str:
        """``image.test.smoke complete``; ``pipeline complete`` for the last message of a run."""
        rest = str(self.body["topic"]).split(self.topic_infix, 1)[-1]
        suffix, _, state = rest.rpartition(".")
        return f"{suffix or 'pipeline'} {state}"

    @property
    def summary(self) -> str:
        """One sentence for people, such as ``dos2unix f41 7a1b2c3: image complete, SUCCESS``."""
        body = self.body
        return f"{body['repo']} {body['branch']} {body['rev'][:7]}: {self.stage}, {body['status']}"

    def __str__(self) -> str:
        package = self.body.get("nvr") or "not built yet"
        return f"{self.summary}\nNVR: {package}\nCommitter: {self.body['username']}\nRun: {self.body['build_url']}\n"

    @property
    def url(self) -> str:
        return str(self.body["build_url"])

    @property
    def agent_name(self) -> str:
        return str(self.body["username"])

    @property
    def agent_avatar(self) -> str:
        return str(user_avatar_url(self.agent_name))

    @property
    def usernames(self) -> list[str]:
        return [str(self.body["username"])]

    @property
    def packages(self) -> list[str]:
        return [str(self.body["repo"])]

    @property
    def msg_json(self) -> str:
        """The compact sorted dump of the body that fedmsg carried as ``msgJson``; not on the wire."""
        return json.dumps(self.body, sort_keys=True, separators=(",", ":"))
