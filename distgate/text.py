"""Text for people: what strangers wrote made harmless for terminals and markdown, lists, sizes in bytes, tables."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from distgate.errors import ConfigurationError

#: Colours, cursor movements, window titles: what a terminal obeys instead of showing it.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?")
#: Controls, halves of characters, and invisible marks that reorder the text around them.
_UNSEEN = ("Cc", "Cs", "Cf")
# An underscore inside a word means nothing in markdown, and Prefect's pages would show the backslash.
_MARKDOWN = re.compile(r"([\\`*{}\[\]<>()#|!~&]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def printable(text: str, *, newlines: bool = True) -> str:
    """``text`` without what a terminal would obey; tabs and, unless ``newlines`` is False, line ends are kept.

    The result can always be encoded as UTF-8.
    """
    plain = _ESCAPES.sub("", text)
    if not newlines:
        plain = " ".join(plain.split())
    whitespace = "\n\t"
    return "".join(
        character for character in plain if character in whitespace or unicodedata.category(character) not in _UNSEEN
    )


def inline(text: str) -> str:
    """``text`` as one line of markdown that shows it as it is: no link, no picture, no HTML, no table cell."""
    return _MARKDOWN.sub(r"\\\1", printable(text, newlines=False))


def fenced(text: str) -> str:
    """``text`` as a block of markdown code, with a fence that the text itself cannot close."""
    plain = printable(text)
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{plain}\n{fence}"


def first_of(names: Sequence[str], separator: str = ", ", most: int = 5) -> str:
    """The first names, and how many more there are: ``a, b, c, d, e and 7 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{separator.join(names[:most])}{more}"


_UNITS = "KMGTP"
_WRITTEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """The bytes that ``text`` means; units are powers of 1024. ConfigurationError when it is no size."""
    match = _WRITTEN.fullmatch(text.strip())
    if not match:
        raise ConfigurationError(f"{text!r} is no size", hint="a number and a unit: 500M, 50G, 1.5T")
    number, unit = match.groups()
    return int(float(number) * 1024 ** (_UNITS.find(unit.upper()) + 1 if unit else 0))


def written_size(text: str) -> str:
    """``text`` itself when it is a size, for a setting or a field of a block. ValueError, as pydantic wants it, when
    it is none."""
    try:
        parse_size(text)
    except ConfigurationError as error:
        raise ValueError(str(error)) from error
    return text


def format_size(size: int) -> str:
    """``size`` bytes for people, with three digits or so: 0 B, 336 MiB, 1.4 GiB."""
    power = min(max(size, 1).bit_length() - 1, 50) // 10
    if not power:
        return f"{size} B"
    number = size / 1024**power
    return f"{number:.{0 if number >= 10 else 1}f} {_UNITS[power - 1]}iB"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table without a newline at its end; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def shown_value(value: Any) -> str:
    """A default as one would write it: JSON, or ``none``."""
    return "none" if value is None else f"`{json.dumps(value, default=str, ensure_ascii=False)}`"
