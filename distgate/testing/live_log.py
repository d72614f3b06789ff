"""The current output of work in progress: the end of the log that was written to last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from distgate.files import tail_of, walk
from distgate.testing.log_excerpts import shortened
from distgate.text import printable

#: The logs that grow while guests and the runners of suites work: a guest's console, a runner's terminal output.
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
    lines = [shortened(line.rstrip()) for line in printable(tail_of(log.path, _MOST_BYTES)).splitlines()]
    tail = [line for line in lines if line][-MOST_LINES:]
    return "\n".join([f"{log.path.relative_to(beside)}, {log.size / 1000:.1f} kB:", *tail])


def _logs(directory: Path) -> Iterator[LiveLog]:
    for entry in walk(directory):
        if entry.name in NAMES and entry.is_file and entry.status.st_size:
            yield LiveLog(directory / entry.path, entry.status.st_size, entry.status.st_mtime_ns)
