"""Files that clients upload to the hub stand-in: chunks as raw bodies, written and checked as a real hub does."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import koji
import koji.util

_VERIFY: dict[str, Callable[[], Any]] = {
    "adler32": koji.util.adler32_constructor,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha256": hashlib.sha256,
}


class Uploads:
    """What lies below the directory ``work`` of a hub by the hand of its clients; an upload belongs to its user."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._lock = threading.Lock()

    def receive(self, query: Mapping[str, list[str]], chunk: bytes, user: str) -> dict[str, Any]:
        """Write one chunk where its query says, and return what arrived. Raises koji's errors as a hub words them."""
        fields = {name: values[0] for name, values in query.items()}
        if "filename" not in fields:
            raise koji.GenericError("no filename in the upload's query")
        directory, path = self._resolve(fields.get("filepath", ""), fields["filename"])
        offset, overwrite, verify = (
            int(fields.get("offset", "0")),
            fields.get("overwrite", ""),
            fields.get("fileverify", ""),
        )
        with self._lock:
            self._claim(directory, user)
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise koji.GenericError(f"destination not a file: {path}")
            if path.exists() and offset == 0 and not overwrite:
                raise koji.GenericError(f"upload path exists: {path}")
            self._write(path, chunk, offset, bool(overwrite))
        answer: dict[str, Any] = {"size": len(chunk), "fileverify": verify, "offset": offset}
        return answer | ({"hexdigest": _digest(verify, chunk)} if verify else {})

    def check(
        self, path: str, name: str, verify: str | None = None, tail: int | None = None, volume: str | None = None
    ) -> dict[str, Any] | None:
        """What is known of an uploaded file; None when there is none."""
        _, file = self._resolve(path, name)
        if not file.is_file():
            return None
        facts = file.stat()
        answer: dict[str, Any] = {"size": facts.st_size, "mtime": facts.st_mtime}
        if verify:
            part = file.read_bytes()[-tail if tail else 0 :]
            answer |= {"sumlength": len(part), "hexdigest": _digest(verify, part)}
        return answer

    def _resolve(self, directory: str, name: str) -> tuple[Path, Path]:
        if "/" in name or not name or name.startswith("."):
            raise koji.GenericError(f"Invalid upload filename: {name}")
        inside = PurePosixPath(os.path.normpath(directory))
        if not directory or inside.is_absolute() or inside.parts[:1] in ((), ("..",), ("tasks",)):
            raise koji.GenericError(f"Invalid upload directory: {directory}")
        return self._work / inside, self._work / inside / name

    def _claim(self, directory: Path, user: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        owner = directory / ".user"
        if owner.exists() and owner.read_text() != user:
            raise koji.GenericError(f"Invalid upload directory, not owner: {directory.relative_to(self._work)}")
        owner.write_text(user)

    def _write(self, path: Path, chunk: bytes, offset: int, overwrite: bool) -> None:
        with path.open("r+b" if path.exists() else "w+b") as stream:
            if offset == -1:
                stream.seek(0, os.SEEK_END)
            else:
                stream.seek(offset)
            start = stream.tell()
            if overwrite:
                stream.truncate(start)
            stream.write(chunk)
            end = stream.seek(0, os.SEEK_END)
        if not overwrite and end != start + len(chunk):
            raise koji.GenericError(
                f"Incorrect upload length for {path} - Expected {start + len(chunk)}, actual {end}"
            )


def _digest(verify: str, content: bytes) -> str:
    if verify not in _VERIFY:
        raise koji.GenericError(f"Unsupported verify type: {verify}")
    sum_ = _VERIFY[verify]()
    sum_.update(content)
    return str(sum_.hexdigest())
