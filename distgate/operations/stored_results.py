"""Which results of stages have expired. Prefect stores them and never removes them; a run is resumed from them.

The storage of Prefect's results, read as files: a directory, or any place that fsspec can reach.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from distgate.ledger.ledger import Ledger
from distgate.ledger.run_ends import ends_of_runs
from distgate.operations.clean_up import DAY, Freed
from distgate.runs.remote_files import RemoteFiles

#: A stage's result is called by its run and its task, other results by 32 digits of Prefect's (tasks.run.stage).
_OF_RUN = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})-.+")
_OF_NO_RUN = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class StoredResult:
    """A result in the storage: its name, its bytes, and when it was written (epoch seconds; None: unknown)."""

    name: str
    size: int
    written: float | None


@dataclass(frozen=True)
class ExpiredResults:
    """Results that go together, and their line in the table."""

    names: tuple[str, ...]
    freed: Freed


def expired_results(ledger: Ledger, stored: Iterable[StoredResult], now: float, keep: float) -> list[ExpiredResults]:
    """The results of runs that ended more than ``keep`` seconds before ``now``, and those of no run that are as old.

    A run without an end stays, and so does one whose results a younger run has taken over: each may be retried. A run
    that the ledger does not know goes by the age of each result.
    """
    by_run: dict[str, list[StoredResult]] = defaultdict(list)
    for result in stored:
        if match := _OF_RUN.fullmatch(result.name):
            by_run[match[1]].append(result)
        elif _OF_NO_RUN.fullmatch(result.name):
            by_run[""].append(result)
    ends = ends_of_runs(ledger, sorted(by_run))
    expired: list[ExpiredResults] = []
    for run_id, results in sorted(by_run.items()):
        if run_id in ends:
            ended = ends[run_id]
            old = results if ended is not None and now - ended >= keep else []
            why = f"its run ended {(now - (ended or now)) / DAY:.0f} days ago"
        else:
            old = [result for result in results if result.written is not None and now - result.written >= keep]
            why = f"of no run in the ledger, and written {keep / DAY:g} days ago or before"
        if old:
            expired.append(_together(run_id or "without a run", old, why))
    return expired


def _together(what: str, results: Sequence[StoredResult], why: str) -> ExpiredResults:
    size = sum(result.size for result in results)
    return ExpiredResults(tuple(result.name for result in results), Freed("lots of results", what, why, size))


#: How the file systems call the time of a file's last change.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


class ResultStorage:
    """The results right below ``url``, a directory or a URL of fsspec's; ``options`` go to its file system.

    Raises ConfigurationError for a URL that no file system here understands; both methods raise InfrastructureError
    when the storage cannot be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        hint = "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK or PREFECT_LOCAL_STORAGE_PATH names it"
        self._files = RemoteFiles("the storage of results", url, options, hint)

    def results(self) -> list[StoredResult]:
        """Every result that is there; none where nothing was ever stored."""
        files = (file for file in self._files.listed() if file["type"] == "file")
        return [StoredResult(PurePosixPath(file["name"]).name, int(file["size"] or 0), _time(file)) for file in files]

    def remove(self, names: Iterable[str]) -> None:
        """Remove results; those that are gone already are no error."""
        for name in names:
            self._files.remove(name)


def _time(file: Mapping[str, Any]) -> float | None:
    for name in _TIMES:
        when = file.get(name)
        if isinstance(when, datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None
