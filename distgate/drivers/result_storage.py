"""The storage of Prefect's results, looked at as files: a directory, or any place that fsspec can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, TypeVar

from fsspec.core import url_to_fs

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.stored_results import StoredResult

T = TypeVar("T")
#: How the file systems call the time of a file's last change.
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")


class ResultStorage:
    """The results right below ``url``, a directory or a URL of fsspec's; ``options`` go to its file system.

    Raises ConfigurationError for a URL that no file system here understands; both methods raise InfrastructureError
    when the storage cannot be used.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        try:
            self._files, self._root = url_to_fs(self.url, **(options or {}))
        except (ImportError, ValueError, TypeError) as unknown:
            raise ConfigurationError(
                f"the storage of results {self.url} cannot be opened: {unknown}",
                hint="it is what PREFECT_DEFAULT_RESULT_STORAGE_BLOCK or PREFECT_LOCAL_STORAGE_PATH name",
            ) from unknown

    def results(self) -> list[StoredResult]:
        """Every result that is there; none where nothing was ever stored."""
        return self._try(lambda: list(self._listed()))

    def remove(self, names: Iterable[str]) -> None:
        """Remove results; those that somebody else has removed are no error."""
        for name in names:
            self._try(lambda name=name: self._remove(f"{self._root}/{name}"))  # type: ignore[misc]

    def _listed(self) -> Iterator[StoredResult]:
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._root, detail=True)
        except FileNotFoundError:
            return
        for one in found:
            if one["type"] == "file":
                yield StoredResult(PurePosixPath(one["name"]).name, int(one["size"] or 0), _time(one))

    def _remove(self, path: str) -> None:
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            return

    def _try(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except Exception as failed:
            # Each file system has errors of its own, and they are no subclasses of one that could be named here.
            raise InfrastructureError(
                f"the storage of results {self.url} does not do its work: {type(failed).__name__}: {failed}"
            ) from failed


def _time(known: Mapping[str, Any]) -> float | None:
    for name in _TIMES:
        when = known.get(name)
        if isinstance(when, datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None
