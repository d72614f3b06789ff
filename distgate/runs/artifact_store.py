"""Copies of run directories for other hosts and people: in a directory, or where fsspec can reach, such as S3.

Below the store's URL each run has a directory of its own name. Beside its files lies a list of them, with a serial
that is new each time: by it a worker knows whether its own copy is the last one.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from distgate.files import remove_tree, walk, write_whole
from distgate.runs.remote_files import RemoteFiles

#: The list of a run's stored files: in the store for every host, in the run's directory for this one.
LIST = ".kept.json"
INDEX = "index.html"
#: Files for people. A stranger's page is text as well: it is not to run in the reader's browser.
_TEXT = frozenset((
    "cfg", "conf", "css", "err", "fmf", "htm", "html", "ini", "js", "json", "ks", "log", "md", "out", "repo", "spec",
    "svg", "tap", "toml", "txt", "xml", "yaml", "yml",
))  # fmt: skip


@dataclass(frozen=True)
class _StoredFiles:
    """The store's files of a run: for each path the size and the time of change that the file had when copied."""

    serial: str = ""
    files: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    # Not distgate.records: a package's tests may leave names that are no UTF-8.
    @classmethod
    def from_json(cls, text: bytes) -> _StoredFiles:
        fields = json.loads(text)
        return cls(fields["serial"], {name: (size, changed) for name, (size, changed) in fields["files"].items()})

    def to_json(self) -> bytes:
        return json.dumps(vars(self)).encode()


class ArtifactStore:
    """Copies of run directories below ``url``, a directory or a URL of fsspec's; ``options`` go to its file system.

    Every method raises InfrastructureError when the store cannot be reached after several attempts. Raises
    ConfigurationError for a URL that no file system here understands.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        hint = "the block artifact-store of the site says where it is and how to log in"
        self._files = RemoteFiles("the artifact store", url, options, hint)
        self.url = self._files.url

    def upload(self, run_dir: Path) -> int:
        """Copy new and changed files of ``run_dir``, remove those that are gone, and return how many were copied.

        Regular files only: a link that a package's tests left may lead anywhere.
        """
        before, now = _last_copy(run_dir), _regular_files(run_dir)
        changed = [name for name, state in now.items() if before.files.get(name) != state]
        removed = [name for name in before.files if name not in now]
        if not changed and not removed:
            return 0
        for name in changed:
            self._files.put(run_dir / name, _key(run_dir.name, name), _kind(name))
        for name in removed:
            self._files.remove(_key(run_dir.name, name))
        stored = _StoredFiles(uuid4().hex, now).to_json()
        self._files.write(f"{run_dir.name}/{INDEX}", _index(run_dir.name, now), "text/html; charset=utf-8")
        self._files.write(f"{run_dir.name}/{LIST}", stored, "application/json")
        write_whole(run_dir / LIST, stored)
        return len(changed)

    def download(self, run_id: str, artifacts: Path) -> bool:
        """Make ``artifacts/run_id`` the store's copy of the run; False when the store has none."""
        run_dir, text = artifacts / run_id, self._files.read(f"{run_id}/{LIST}")
        if text is None:
            return False
        stored = _StoredFiles.from_json(text)
        if stored.serial == _last_copy(run_dir).serial:
            return True
        fresh = artifacts / f".{run_id}.{uuid4().hex}"
        try:
            for name in stored.files:
                self._files.get(_key(run_id, name), fresh / name)
            (fresh / LIST).write_bytes(_StoredFiles(stored.serial, _regular_files(fresh)).to_json())
            if run_dir.exists():
                remove_tree(run_dir)
            fresh.rename(run_dir)
        finally:
            remove_tree(fresh, ignore_errors=True)
        return True

    def runs(self) -> list[str]:
        """The names of the run directories in the store."""
        entries = self._files.listed()
        return sorted(PurePosixPath(entry["name"]).name for entry in entries if entry["type"] == "directory")

    def remove(self, run_id: str) -> None:
        """Remove a run from the store, if it is there."""
        self._files.remove(run_id, recursive=True)

    def probe(self) -> None:
        """Write a file to the store and remove it."""
        key = f".probe-{uuid4().hex}"
        self._files.write(key, b"distgate", "text/plain")
        self._files.remove(key)


def _last_copy(run_dir: Path) -> _StoredFiles:
    path = run_dir / LIST
    return _StoredFiles.from_json(path.read_bytes()) if path.is_file() else _StoredFiles()


def _regular_files(run_dir: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file below, by its path."""
    files: dict[str, tuple[int, int]] = {}
    for entry in walk(run_dir):
        if entry.is_file:
            files[str(entry.path)] = (entry.status.st_size, entry.status.st_mtime_ns)
    files.pop(LIST, None)
    return files


def _key(run_id: str, name: str) -> str:
    return f"{run_id}/{_text(name)}"


def _text(name: str) -> str:
    # A package's tests may leave a name that is no text, and keys are text.
    return os.fsencode(name).decode(errors="backslashreplace")


def _kind(name: str) -> str:
    ending = name.rpartition(".")[2].lower()
    return "text/plain; charset=utf-8" if ending in _TEXT else "application/octet-stream"


def _index(run_id: str, names: Iterable[str]) -> bytes:
    """A page of links to every file of a run: object stores list nothing to a browser."""
    keys = [_text(name) for name in sorted(names)]
    lines = "\n".join(f'<li><a href="{quote(key)}">{html.escape(key)}</a></li>' for key in keys)
    title = f"Artifacts of run {html.escape(run_id)}"
    page = (
        f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{title}</title>\n<h1>{title}</h1>\n<ul>\n{lines}\n</ul>\n'
    )
    return page.encode()
