"""The storage of Prefect's results, looked at as files: a directory, or any place that fsspec can reach."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from distgate.drivers.far_files import FarFiles
from distgate.stored_results import StoredResult

#: How the file systems call the time of a file's last change.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


class ResultStorage:
    """The results right below ``url``, a directory or a URL of fsspec's; ``options`` go to its file system.

    Raises ConfigurationError for a URL that no file system here understands; both methods raise InfrastructureError
    when the storage cannot be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        hint = "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK or PREFECT_LOCAL_STORAGE_PATH names it"
        self._files = FarFiles("the storage of results", url, options, hint)

    def results(self) -> list[StoredResult]:
        """Every result that is there; none where nothing was ever stored."""
        found = (one for one in self._files.listed() if one["type"] == "file")
        return [StoredResult(PurePosixPath(one["name"]).name, int(one["size"] or 0), _time(one)) for one in found]

    def remove(self, names: Iterable[str]) -> None:
        """Remove results; those that somebody else has removed are no error."""
        for name in names:
            self._files.remove(name)


def _time(known: Mapping[str, Any]) -> float | None:
    for name in _TIMES:
        when = known.get(name)
        if isinstance(when, datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None
