"""Sizes in bytes as people write and read them: 500M, 50G, 1.5T."""

from __future__ import annotations

import re

from distgate.errors import ConfigurationError

_UNITS = "KMGTP"
_WRITTEN = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """The bytes that ``text`` means; units are powers of 1024. ConfigurationError when it is no size."""
    found = _WRITTEN.fullmatch(text.strip())
    if not found:
        raise ConfigurationError(f"{text!r} is no size", hint="a number and a unit: 500M, 50G, 1.5T")
    number, unit = found.groups()
    return int(float(number) * 1024 ** (_UNITS.find(unit.upper()) + 1 if unit else 0))


def written_size(text: str) -> str:
    """``text`` itself when it is a size, for a setting or a field of a block. ValueError, as pydantic wants it, when
    it is none."""
    try:
        parse_size(text)
    except ConfigurationError as wrong:
        raise ValueError(str(wrong)) from wrong
    return text


def format_size(size: int) -> str:
    """``size`` bytes for people, with three digits or so: 0 B, 336 MiB, 1.4 GiB."""
    power = min(max(size, 1).bit_length() - 1, 50) // 10
    if not power:
        return f"{size} B"
    number = size / 1024**power
    return f"{number:.{0 if number >= 10 else 1}f} {_UNITS[power - 1]}iB"
