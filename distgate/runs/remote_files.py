"""Files in a directory, or where fsspec can reach, such as S3; a call that fails is tried again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fsspec.core import url_to_fs
from tenacity import Retrying, before_sleep_log, stop_after_attempt, wait_exponential

from distgate.errors import ConfigurationError, InfrastructureError

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

TRIES = 4
_note_retry = before_sleep_log(log, logging.WARNING)
#: The option with a file's MIME type, of each file system that has one.
_TYPE_OPTION = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}


class RemoteFiles:
    """The files below ``url``, a directory or a URL of fsspec's; ``options`` go to its file system.

    ``what`` they are, and ``hint`` where they are configured, are for the texts of errors. Keys are relative to the
    URL. Raises ConfigurationError for a URL that no file system here understands; every method raises
    InfrastructureError when TRIES attempts have failed.
    """

    def __init__(self, what: str, url: str, options: Mapping[str, Any] | None, hint: str) -> None:
        self.url = url.rstrip("/")
        self._what, self._hint = f"{what} {self.url}", hint
        try:
            self._files, self._root = url_to_fs(self.url, **(_own_options(self.url) | dict(options or {})))
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{self._what} cannot be opened: {error}",
                hint="it is a directory or a URL that fsspec understands; for s3:// install distgate[s3]",
            ) from error

    def put(self, path: Path, key: str, kind: str) -> None:
        """Upload a file; ``kind`` is its MIME type."""
        self._retry(self._files.put_file, str(path), self._at(key), **self._typed(kind))

    def write(self, key: str, content: bytes, kind: str) -> None:
        """Write a remote file; ``kind`` is its MIME type."""
        self._retry(self._files.pipe_file, self._at(key), content, **self._typed(kind))

    def read(self, key: str) -> bytes | None:
        """The content of a file; None when there is none."""
        return self._retry(self._read, self._at(key))

    def get(self, key: str, path: Path) -> None:
        """Download a file, and make the directories above ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._retry(self._files.get_file, self._at(key), str(path))

    def remove(self, key: str, *, recursive: bool = False) -> None:
        """Remove a file, or a directory with its content; one that does not exist is no error."""
        self._retry(self._remove, self._at(key), recursive)

    def listed(self) -> list[Mapping[str, Any]]:
        """The entries of the URL's own directory, as fsspec describes them (``name``, ``type``, ``size``)."""
        return self._retry(self._listed)

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _retry(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        attempts = Retrying(
            stop=stop_after_attempt(TRIES), wait=wait_exponential(0.5, max=10), before_sleep=_note_retry, reraise=True
        )
        try:
            return attempts(act, *args, **kwargs)
        except Exception as error:
            # Each file system has errors of its own, and they are no subclasses of one that could be named here.
            raise InfrastructureError(
                f"{self._what} does not do its work: {type(error).__name__}: {error}", hint=self._hint
            ) from error

    def _read(self, path: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(path))
        except FileNotFoundError:
            return None

    def _remove(self, path: str, recursive: bool) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(path, recursive=True) if recursive else self._files.rm_file(path)

    def _listed(self) -> list[Mapping[str, Any]]:
        self._files.invalidate_cache()
        try:
            return list(self._files.ls(self._root, detail=True))
        except FileNotFoundError:
            return []

    def _typed(self, kind: str) -> dict[str, str]:
        option = _TYPE_OPTION.get(self.url.partition("://")[0])
        return {option: kind} if option else {}


def _own_options(url: str) -> dict[str, Any]:
    return {"auto_mkdir": True} if "://" not in url or url.startswith("file://") else {}
