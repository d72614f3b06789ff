"""Where the artifacts of runs are kept for others: a directory, or any place that fsspec can reach, such as S3.

Below the store's URL each run has a place of the name of its directory. Beside its files lies a list of them, under a
number that is new each time: by it a worker knows whether the copy that it has is the last one.
"""

from __future__ import annotations

import html
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from distgate.runs.remote_files import RemoteFiles

#: The list of what is kept of a run: in the store for everybody, in the run's directory for this host.
LIST = ".kept.json"
INDEX = "index.html"
#: What people read. A stranger's page is text as well: it is not to run in the reader's browser.
_TEXT = frozenset((
    "cfg", "conf", "css", "err", "fmf", "htm", "html", "ini", "js", "json", "ks", "log", "md", "out", "repo", "spec",
    "svg", "tap", "toml", "txt", "xml", "yaml", "yml",
))  # fmt: skip


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

    Every method raises InfrastructureError when the store cannot be reached after several attempts. Raises
    ConfigurationError for a URL that no file system here understands.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        hint = "the block artifact-store of the site says where it is and how to log in"
        self._files = RemoteFiles("the artifact store", url, options, hint)
        self.url = self._files.url

    def keep(self, room: Path) -> int:
        """Copy what is new or changed in the run directory ``room``, remove what is gone; how many files were copied.

        Regular files only: a link that a package's tests left may lead anywhere.
        """
        before, now = _kept_here(room), _regular_files(room)
        changed = [name for name, seen in now.items() if before.files.get(name) != seen]
        gone = [name for name in before.files if name not in now]
        if not changed and not gone:
            return 0
        for name in changed:
            self._files.put(room / name, _key(room.name, name), _kind(name))
        for name in gone:
            self._files.remove(_key(room.name, name))
        kept = _Kept(uuid4().hex, now)
        self._files.write(f"{room.name}/{INDEX}", _index(room.name, now), "text/html; charset=utf-8")
        self._files.write(f"{room.name}/{LIST}", kept.written(), "application/json")
        (room / LIST).write_bytes(kept.written())
        return len(changed)

    def bring(self, run_id: str, artifacts: Path) -> bool:
        """Make ``artifacts/run_id`` what the store has of the run, unless it is so; False when it has nothing."""
        room, there = artifacts / run_id, self._files.read(f"{run_id}/{LIST}")
        if there is None:
            return False
        kept = _Kept.read(there)
        if kept.serial == _kept_here(room).serial:
            return True
        fresh = artifacts / f".{run_id}.{uuid4().hex}"
        try:
            for name in kept.files:
                self._files.get(_key(run_id, name), fresh / name)
            (fresh / LIST).write_bytes(_Kept(kept.serial, _regular_files(fresh)).written())
            if room.exists():
                shutil.rmtree(room)
            fresh.rename(room)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return True

    def runs(self) -> list[str]:
        """The runs of which something is kept, by the names of their directories."""
        found = self._files.listed()
        return sorted(PurePosixPath(one["name"]).name for one in found if one["type"] == "directory")

    def drop(self, run_id: str) -> None:
        """Remove all that is kept of a run; nothing when nothing is."""
        self._files.remove(run_id, recursive=True)

    def probe(self) -> None:
        """Leave a file in the store and take it back."""
        key = f".probe-{uuid4().hex}"
        self._files.write(key, b"distgate", "text/plain")
        self._files.remove(key)


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


def _key(run_id: str, name: str) -> str:
    return f"{run_id}/{_text(name)}"


def _text(name: str) -> str:
    # A package's tests may leave a name that is no text, and keys are text.
    return os.fsencode(name).decode(errors="backslashreplace")


def _kind(name: str) -> str:
    ending = name.rpartition(".")[2].lower()
    return "text/plain; charset=utf-8" if ending in _TEXT else "application/octet-stream"


def _index(run_id: str, names: Iterable[str]) -> bytes:
    """A page that leads to every file of a run: object stores list nothing to a browser."""
    keys = [_text(name) for name in sorted(names)]
    lines = "\n".join(f'<li><a href="{quote(key)}">{html.escape(key)}</a></li>' for key in keys)
    title = f"Artifacts of run {html.escape(run_id)}"
    page = (
        f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{lines}\n</ul>\n'
    )
    return page.encode()
