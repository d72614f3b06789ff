"""What a piece of work costs: seconds of the clock and of CPU, its child processes included."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Cost:
    """Seconds; both are set when the block of ``measured`` ends."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure a block: the clock, and the CPU of this process and of every child that it has waited for."""
    cost, began, spent = Cost(), time.monotonic(), _spent()
    try:
        yield cost
    finally:
        cost.wall, cost.cpu = round(time.monotonic() - began, 3), round(_spent() - spent, 3)


def cpu_seconds_of(pid: int) -> float:
    """User and system time of one running process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
