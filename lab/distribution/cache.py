"""Expensive things, made once: a directory per content identity, whole or absent, one maker at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.files import remove_tree

KEPT_UNUSED = 30 * 86400.0
"""Seconds that an entry stays after its last use: composed images may still refer to it."""


def identity_of(*parts: str | bytes) -> str:
    """Sixteen hex digits that change whenever any of ``parts`` (or their borders) change."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f"{len(data)}:".encode() + data)
    return digest.hexdigest()[:16]


def ensure_entry(cache: Path, kind: str, identity: str, make: Callable[[Path], None]) -> Path:
    """Return ``cache/kind/identity``, calling ``make`` on an empty directory when it does not exist yet.

    Concurrent callers, of any process, wait for the one that makes it. A maker that fails or is killed leaves
    no entry; what a killed one had written is removed by the next caller. Making an entry removes those of its
    kind that was not used for thirty days.
    """
    entry = cache / kind / identity
    if entry.is_dir():
        os.utime(entry)
        return entry
    entry.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(cache / f"{kind}.lock"):
        if entry.is_dir():
            return entry
        for abandoned in entry.parent.glob(".making-*"):
            remove_tree(abandoned)
        making = Path(tempfile.mkdtemp(prefix=".making-", dir=entry.parent))
        try:
            make(making)
            making.chmod(0o755)
            making.rename(entry)
            _forget_unused(entry.parent)
        except BaseException:
            remove_tree(making, ignore_errors=True)
            raise
    return entry


def _forget_unused(entries: Path) -> None:
    for entry in entries.iterdir():
        if time.time() - entry.stat().st_mtime > KEPT_UNUSED:
            remove_tree(entry)


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold an advisory lock on ``lock`` for the block; it is released even by a killed process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
