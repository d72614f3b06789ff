"""The Atomic Host pipeline's stage messages: ``<main>.ci.pipeline.<stage>.<state>``."""

from __future__ import annotations

from typing import Any, ClassVar

from distgate_messages.fields import BASE_FIELDS, NVR_FIELDS
from distgate_messages.stage import StageMessage, flat_schema

#: Which of these a message has depends on its stage.
LATER_FIELDS = ("compose_rev", "compose_url", "image_name", "image_url", "package_url", "type")


class StageV1(StageMessage):
    """One stage of one run of the Atomic Host pipeline."""

    topic_infix: ClassVar[str] = ".ci.pipeline."
    body_schema: ClassVar[dict[str, Any]] = flat_schema(
        "atomic-stage-v1",
        "A stage of the Atomic Host pipeline was queued, began, ended, or a change was ignored",
        required=BASE_FIELDS,
        optional=(*NVR_FIELDS, *LATER_FIELDS),
    )

    @property
    def usernames(self) -> list[str]:
        """Nobody: ``username`` is always the pipeline's own, fedora-atomic."""
        return []
