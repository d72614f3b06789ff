"""What a piece of work is saying just now: the end of the log that was written to last."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distgate.testing.log_excerpts import shortened
from distgate.testing.results import read_end
from distgate.text import printable

#: What guests and the runners of suites write while they work: a guest's console, what a terminal would show.
NAMES = frozenset({"console.log", "ansible.txt", "tmt.txt"})
MOST_LINES = 20
_MOST_BYTES = 1 << 13


@dataclass(frozen=True)
class LiveLog:
    """A log, its size in bytes and when it was last written to (nanoseconds since the epoch)."""

    path: Path
    size: int
    at: int


def newest_log(directory: Path) -> LiveLog | None:
    """The log below ``directory`` that was written to last; None while there is none with anything in it."""
    return max(_logs(directory), key=lambda log: log.at, default=None)


def tail_text(log: LiveLog, beside: Path) -> str:
    """The log's path relative to ``beside``, its size, and its last lines, as printable text."""
    lines = [shortened(line.rstrip()) for line in printable(read_end(log.path, _MOST_BYTES)).splitlines()]
    shown = [line for line in lines if line][-MOST_LINES:]
    return "\n".join([f"{log.path.relative_to(beside)}, {log.size / 1000:.1f} kB:", *shown])


def _logs(directory: Path) -> Iterator[LiveLog]:
    for folder, _, files in os.walk(directory):
        for name in NAMES.intersection(files):
            with contextlib.suppress(OSError):  # it may be gone already
                found = (Path(folder) / name).lstat()  # a link is a suite's, and may lead anywhere
                if stat.S_ISREG(found.st_mode) and found.st_size:
                    yield LiveLog(Path(folder) / name, found.st_size, found.st_mtime_ns)
