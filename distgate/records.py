"""Frozen records as JSON files: written whole, and read back with an error that names the wrong field."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from distgate.errors import ConfigurationError, DistgateError
from distgate.files import write_whole

T = TypeVar("T")


def to_json(record: Any, *, indent: int | None = 1) -> str:
    """A dataclass, a model, or lists and mappings of them as JSON; paths become strings."""
    return json.dumps(to_jsonable_python(record), indent=indent)


def from_json(
    text: str | bytes, kind: type[T], source: str, *, raises: type[DistgateError] = ConfigurationError, hint: str = ""
) -> T:
    """The record of class ``kind`` in ``text``. What the class does not know is passed over.

    Raises ``raises``, whose text begins with ``source`` and names the first field that is wrong.
    """
    shape: Any = kind
    try:
        record: T = _adapter(shape).validate_python(json.loads(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        message = first["msg"].removeprefix("Value error, ")
        raise raises(f"{source}: the field {field} is wrong: {message}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise raises(f"{source} is no JSON: {error}", hint="was it cut off when it was copied?") from error
    return record


def write_record(path: Path, record: Any) -> None:
    """Write ``record`` to the JSON file ``path``, whole or not at all. Raises OSError."""
    write_whole(path, to_json(record) + "\n")


def read_record(path: Path, kind: type[T], *, raises: type[DistgateError] = ConfigurationError, hint: str = "") -> T:
    """The record of class ``kind`` in the JSON file ``path``.

    Raises OSError when the file cannot be read, and ``raises``, which names the file and the field, when what it
    holds is no such record.
    """
    return from_json(path.read_bytes(), kind, str(path), raises=raises, hint=hint)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
