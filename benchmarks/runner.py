"""``distgate bench NAME``: runs one benchmark; its last line on standard output is one JSON object if wished."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

from distgate.errors import ConfigurationError

#: Each is a module here with a function ``measure(progress)``: it returns medians, and ratios that are named
#: ``<ours>_over_<theirs>``.
BENCHMARKS = ("intake", "boot", "compose", "suite", "overhead")


def bench(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(BENCHMARKS)}")],
    as_json: Annotated[bool, typer.Option("--json", help="End with one JSON object of medians and ratios.")] = False,
) -> None:
    """Measure a part of distgate beside the bare tools it stands on; takes minutes."""
    if name not in BENCHMARKS:
        raise ConfigurationError(f"there is no benchmark {name}", hint=f"one of: {', '.join(BENCHMARKS)}")
    measure: Callable[[Callable[[str], None]], dict[str, Any]] = import_module(f"benchmarks.{name}").measure
    report = measure(lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(report, sort_keys=True) if as_json else "\n".join(_lines(report)))


def _lines(report: dict[str, Any]) -> list[str]:
    return [f"{name}: {json.dumps(value)}" for name, value in report.items()]
