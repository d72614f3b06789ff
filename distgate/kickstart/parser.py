"""pykickstart's reader, asked about a text that is whole: its refusals name file and line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from pykickstart.errors import KickstartError, KickstartParseWarning
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion, stringToVersion

from distgate.errors import ConfigurationError
from distgate.kickstart.text import UNNAMED, Line, broken, outline


def parse(
    text: str, name: str = UNNAMED, *, syntax: str = "", strict: bool = False, origin: Sequence[Line] = ()
) -> Any:
    """pykickstart's handler for a flattened kickstart.

    ``syntax`` is a release such as "F44" (default: the newest that pykickstart knows), ``strict`` refuses what is
    deprecated, as ksvalidator does, and ``origin`` is where each line of the text was written. Raises
    ConfigurationError for what pykickstart refuses, and for a text that would fetch more of itself.
    """
    handler, parser = _reader(name, syntax)
    try:
        with warnings.catch_warnings():
            # Deprecated commands are the author's business, unless strict.
            warnings.simplefilter("ignore")
            if strict:
                warnings.simplefilter("error", KickstartParseWarning)
            parser.readKickstartFromString(text)
    except KickstartError as error:
        raise broken_at(error.lineno, name, error.message or str(error), origin) from None
    except KickstartParseWarning as error:
        raise broken_at(None, name, str(error), origin) from None
    except (ValueError, LookupError) as error:
        # shlex's complaint about quotes, or a lone "-" among the packages: pykickstart adds no line number.
        raise broken_at(_line_of(text, parser._line), name, str(error), origin) from None
    outline(text, name)
    return handler


def _reader(name: str, syntax: str) -> tuple[Any, Any]:
    try:
        handler = makeVersion(stringToVersion(syntax)) if syntax else makeVersion()
    except KickstartError as error:
        raise broken_at(None, name, error.message or str(error)) from None
    # Includes were followed before, within their tree; pykickstart would follow them anywhere, even to a URL.
    return handler, KickstartParser(handler, followIncludes=False)


def _line_of(text: str, command: str) -> int:
    lines = text.splitlines()
    return next((number for number, line in enumerate(lines, 1) if line.strip() == command.strip()), 0)


def broken_at(number: int | None, name: str, text: str, origin: Sequence[Line] = ()) -> ConfigurationError:
    """The error for line ``number`` of a flattened kickstart, at the file and line where ``origin`` has it."""
    if number and number <= len(origin):
        line = origin[number - 1]
        name, number = line.file.name, line.number
    elif origin:
        number = None
    hint = "" if name == UNNAMED else f"check it with ksvalidator {name}"
    return broken(name, number, text, hint=hint)
