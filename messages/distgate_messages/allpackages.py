"""The All Packages pipeline's stage messages: ``<main>.ci.pipeline.allpackages.<stage>.<state>``."""

from __future__ import annotations

from typing import Any, ClassVar

from distgate_messages.fields import BASE_FIELDS, NVR_FIELDS
from distgate_messages.stage import StageMessage, flat_schema


class StageV1(StageMessage):
    """One stage of one run of the All Packages pipeline."""

    topic_infix: ClassVar[str] = ".ci.pipeline.allpackages."
    body_schema: ClassVar[dict[str, Any]] = flat_schema(
        "allpackages-stage-v1",
        "A stage of the All Packages pipeline was queued, began, ended, or a change was ignored",
        required=(*BASE_FIELDS, *NVR_FIELDS),
        optional=("type",),
    )
