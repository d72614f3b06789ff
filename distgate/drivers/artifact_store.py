"""Where the artifacts of runs are kept for others: a directory, or any place that fsspec can reach, such as S3.

Below the store's URL each run has a place of the name of its directory. Beside its files lies a list of them, under a
number that is new each time: by it a worker knows whether the copy that it has is the last one.
"""

from __future__ import annotations

import html
import json
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote
from uuid import uuid4

from fsspec.core import url_to_fs
from tenacity import Retrying, before_sleep_log, stop_after_attempt, wait_exponential

from distgate.errors import ConfigurationError, InfrastructureError

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")

#: The list of what is kept of a run: in the store for everybody, in the run's directory for this host.
LIST = ".kept.json"
INDEX = "index.html"
TRIES = 4
_note_retry = before_sleep_log(log, logging.WARNING)
#: What people read. A stranger's page is text as well: it is not to run in the reader's browser.
_TEXT = frozenset((
    "cfg", "conf", "css", "err", "fmf", "htm", "html", "ini", "js", "json", "ks", "log", "md", "out", "repo", "spec",
    "svg", "tap", "toml", "txt", "xml", "yaml", "yml",
))  # fmt: skip
#: How each file system is told what a file is; others do without.
_TYPE_OPTION = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}


@dataclass(frozen=True)
class _Kept:
    """What the store has of a run: for each path the size and the time of change that the file had when copied."""

    serial: str = ""
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: bytes) -> _Kept:
        said = json.loads(text)
        return cls(said["serial"], {name: (size, changed) for name, (size, changed) in said["files"].items()})

    def written(self) -> bytes:
        return json.dumps({"serial": self.serial, "files": self.files}).encode()


class ArtifactStore:
    """Copies of run directories below ``url``, a directory or a URL of fsspec's; ``options`` go to its file system.

    Every method raises InfrastructureError when the store cannot be reached after TRIES attempts. Raises
    ConfigurationError for a URL that no file system here understands.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.url = url.rstrip("/")
        try:
            self._files, self._root = url_to_fs(self.url, **(_own_options(self.url) | dict(options or {})))
        except (ImportError, ValueError, TypeError) as unknown:
            raise ConfigurationError(
                f"the artifact store {self.url} cannot be opened: {unknown}",
                hint="it is a directory or a URL that fsspec understands; for s3:// install distgate[s3]",
            ) from unknown

    def keep(self, room: Path) -> int:
        """Copy what is new or changed in the run directory ``room``, remove what is gone; how many files were copied.

        Regular files only: a link that a package's tests left may lead anywhere.
        """
        before, now = _kept_here(room), _regular_files(room)
        changed = [name for name, seen in now.items() if before.files.get(name) != seen]
        gone = [name for name in before.files if name not in now]
        if not changed and not gone:
            return 0
        place = self._place(room.name)
        for name in changed:
            self._try(self._put, room / name, f"{place}/{_key(name)}", _kind(name))
        for name in gone:
            self._try(self._remove, f"{place}/{_key(name)}")
        kept = _Kept(uuid4().hex, now)
        self._try(self._write, f"{place}/{INDEX}", _index(room.name, now), "text/html; charset=utf-8")
        self._try(self._write, f"{place}/{LIST}", kept.written(), "application/json")
        (room / LIST).write_bytes(kept.written())
        return len(changed)

    def bring(self, run_id: str, artifacts: Path) -> bool:
        """Make ``artifacts/run_id`` what the store has of the run, unless it is so; False when it has nothing."""
        place, room = self._place(run_id), artifacts / run_id
        there = self._try(self._read, f"{place}/{LIST}")
        if there is None:
            return False
        kept = _Kept.read(there)
        if kept.serial == _kept_here(room).serial:
            return True
        fresh = artifacts / f".{run_id}.{uuid4().hex}"
        try:
            for name in kept.files:
                self._try(self._get, f"{place}/{_key(name)}", fresh / name)
            (fresh / LIST).write_bytes(_Kept(kept.serial, _regular_files(fresh)).written())
            if room.exists():
                shutil.rmtree(room)
            fresh.rename(room)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return True

    def runs(self) -> list[str]:
        """The runs of which something is kept, by the names of their directories."""
        return self._try(self._directories)

    def drop(self, run_id: str) -> None:
        """Remove all that is kept of a run; nothing when nothing is."""
        self._try(self._remove, self._place(run_id))

    def probe(self) -> None:
        """Leave a file in the store and take it back."""
        key = f"{self._root}/.probe-{uuid4().hex}"
        self._try(self._write, key, b"distgate", "text/plain")
        self._try(self._remove, key)

    def _place(self, run_id: str) -> str:
        return f"{self._root}/{run_id}"

    # -- one request each, repeated when it fails ------------------------------------------------------------------

    def _try(self, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        attempts = Retrying(
            stop=stop_after_attempt(TRIES), wait=wait_exponential(0.5, max=10), before_sleep=_note_retry, reraise=True
        )
        try:
            return attempts(act, *args, **kwargs)
        except Exception as failed:
            # Each file system has errors of its own, and they are no subclasses of one that could be named here.
            raise InfrastructureError(
                f"the artifact store {self.url} does not do its work: {type(failed).__name__}: {failed}",
                hint="the block artifact-store of the site says where it is and how to log in",
            ) from failed

    def _put(self, path: Path, key: str, kind: str) -> None:
        self._files.put_file(str(path), key, **self._typed(kind))

    def _write(self, key: str, content: bytes, kind: str) -> None:
        self._files.pipe_file(key, content, **self._typed(kind))

    def _read(self, key: str) -> bytes | None:
        try:
            return bytes(self._files.cat_file(key))
        except FileNotFoundError:
            return None

    def _get(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(key, str(path))

    def _remove(self, key: str) -> None:
        with suppress(FileNotFoundError):
            self._files.rm(key, recursive=True)

    def _directories(self) -> list[str]:
        self._files.invalidate_cache()
        try:
            found = self._files.ls(self._root, detail=True)
        except FileNotFoundError:  # nothing was kept yet
            return []
        return sorted(PurePosixPath(one["name"]).name for one in found if one["type"] == "directory")

    def _typed(self, kind: str) -> dict[str, str]:
        option = _TYPE_OPTION.get(self.url.partition("://")[0])
        return {option: kind} if option else {}


def _own_options(url: str) -> dict[str, Any]:
    return {"auto_mkdir": True} if "://" not in url or url.startswith("file://") else {}


def _kept_here(room: Path) -> _Kept:
    path = room / LIST
    return _Kept.read(path.read_bytes()) if path.is_file() else _Kept()


def _regular_files(room: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below, by its path. A link that tests left may lead anywhere."""
    found: dict[str, tuple[int, int]] = {}
    for directory, _, names in os.walk(room):
        for path in (Path(directory, name) for name in names):
            seen = path.lstat()
            if stat.S_ISREG(seen.st_mode):
                found[str(path.relative_to(room))] = (seen.st_size, seen.st_mtime_ns)
    found.pop(LIST, None)
    return found


def _key(name: str) -> str:
    # A package's tests may leave a name that is no text, and keys are text.
    return os.fsencode(name).decode(errors="backslashreplace")


def _kind(name: str) -> str:
    ending = name.rpartition(".")[2].lower()
    return "text/plain; charset=utf-8" if ending in _TEXT else "application/octet-stream"


def _index(run_id: str, names: Iterable[str]) -> bytes:
    """A page that leads to every file of a run: object stores list nothing to a browser."""
    keys = [_key(name) for name in sorted(names)]
    lines = "\n".join(f'<li><a href="{quote(key)}">{html.escape(key)}</a></li>' for key in keys)
    title = f"Artifacts of run {html.escape(run_id)}"
    page = (
        f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{lines}\n</ul>\n'
    )
    return page.encode()
