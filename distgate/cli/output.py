"""How commands print: JSON or a table on standard output, all else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

import typer

from distgate.text import printable

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def print_json(record: Mapping[str, Any], *, sort_keys: bool = False) -> None:
    """Print one object; what JSON has no form for is printed as text."""
    print(json.dumps(record, indent=1, default=str, sort_keys=sort_keys))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], alarming: Collection[str] = ()) -> None:
    """Print a table; cells that are one of ``alarming`` stand out."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*heads, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(cell), style="bold red" if cell in alarming else "") for cell in row))
    # A pipe has no width: lines that are cut or wrapped there would be of no use.
    Console(width=None if sys.stdout.isatty() else 400).print(table)


def say(text: str) -> None:
    """Print a line on standard error."""
    print(printable(text, newlines=False), file=sys.stderr)
