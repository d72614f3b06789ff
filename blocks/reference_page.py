"""The page docs/reference-blocks.md, made from the blocks: ``distgate reference blocks``."""

from __future__ import annotations

from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo

import blocks
from blocks.site import SiteBlock
from distgate.text import shown_value, table

HEAD = """\
# Reference: blocks

<!-- Made by `distgate reference blocks` from blocks/; a test compares. -->

Places and credentials are Prefect blocks: `prefect block register -m blocks` makes the types known; documents are
saved in the UI (Blocks, +) or from Python. Their name is the site's (`DISTGATE_SITE`): the Koji of site `fedora` is
`koji-instance/fedora`. A run reads them when it needs them, so a change is in force for the next run. Fields that are
*secret* are hidden in the UI; those who may use the API can read them. Paths are paths on the worker.
"""


def page() -> str:
    """The whole page as markdown, ending in a newline."""
    return "\n".join([HEAD, *(_block(getattr(blocks, name)) for name in blocks.__all__)])


def _block(kind: type[SiteBlock]) -> str:
    fields = {name: field for name, field in kind.model_fields.items() if field.description}
    rows = [(f"`{name}`", _default(field), _meaning(field)) for name, field in fields.items()]
    head = f"## {kind._block_type_name}: `{kind._block_type_slug}`\n\n{kind._description}\n"
    return f"{head}\n{table(('field', 'default', 'holds'), rows)}\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default(call_default_factory=True, validated_data={})
    return shown_value(value.get_secret_value() if hasattr(value, "get_secret_value") else value)


def _meaning(field: FieldInfo) -> str:
    secret = " *secret*" if "Secret" in str(field.annotation) else ""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    one_of = f" (one of {', '.join(f'`{choice}`' for choice in choices)})" if choices else ""
    return f"{field.description}{secret}{one_of}"
