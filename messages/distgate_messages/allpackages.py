"""The All Packages pipeline's stage messages: ``<main>.ci.pipeline.allpackages.<stage>.<state>``."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from fedora_messaging import message
from fedora_messaging.schema_utils import user_avatar_url

#: In every message of this pipeline; all values are text.
FIELDS = (
    "CI_NAME",
    "CI_TYPE",
    "branch",
    "build_id",
    "build_url",
    "message-content",
    "namespace",
    "nvr",
    "original_spec_nvr",
    "ref",
    "repo",
    "rev",
    "status",
    "test_guidance",
    "topic",
    "username",
)
FILLED = ("branch", "build_id", "build_url", "namespace", "ref", "repo", "rev", "topic", "username")


def _schema() -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    fields: dict[str, Any] = dict.fromkeys((*FIELDS, "type"), text)
    fields |= {name: {"type": "string", "minLength": 1} for name in FILLED}
    fields["status"] = {"type": "string", "enum": ["SUCCESS", "FAILURE", "UNSTABLE", "ABORTED"]}
    return {
        "id": "http://distgate/schemas/allpackages-stage-v1.json",
        "$schema": "http://json-schema.org/draft-04/schema#",
        "description": "A stage of the All Packages pipeline was queued, began, ended, or a change was ignored",
        "type": "object",
        "properties": fields,
        "required": list(FIELDS),
        "additionalProperties": False,
    }


class StageV1(message.Message):
    """One stage of one run of the All Packages pipeline."""

    body_schema: ClassVar[dict[str, Any]] = _schema()

    @property
    def app_name(self) -> str:
        return "distgate"

    @property
    def stage(self) -> str:
        """``image.test.smoke complete``; ``pipeline complete`` for the last message of a run."""
        rest = str(self.body["topic"]).split(".ci.pipeline.allpackages.", 1)[-1]
        suffix, _, state = rest.rpartition(".")
        return f"{suffix or 'pipeline'} {state}"

    @property
    def summary(self) -> str:
        """One sentence for people, such as ``dos2unix f41 7a1b2c3: image complete, SUCCESS``."""
        body = self.body
        return f"{body['repo']} {body['branch']} {body['rev'][:7]}: {self.stage}, {body['status']}"

    def __str__(self) -> str:
        package = self.body["nvr"] or "not built yet"
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
