"""Tables of the pages under docs/ that are made from code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table without a newline at its end; what would end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def shown_value(value: Any) -> str:
    """A default as one would write it: JSON, or ``none``."""
    return "none" if value is None else f"`{json.dumps(value, default=str, ensure_ascii=False)}`"
