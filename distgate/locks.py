"""Locks that the kernel gives back when their owner dies, with a line that names the owner."""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from distgate.errors import InfrastructureError
from distgate.waiting import Deadline, wait_for

#: What a lease is a shared lock on, and where its owners' lines are, in the directory of what is leased.
GUARD = "lease"
OWNERS = "leases"


class Gone(InfrastructureError):
    """What was to be leased had been removed by then; asking for it anew makes it again."""


@dataclass(frozen=True)
class LockOwner:
    """Who holds a lock: its name (such as a run's ID), its process, and since when in seconds of the epoch."""

    name: str
    pid: int
    since: float

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC)
        return f"{self.name or 'an unnamed owner'} (process {self.pid}, since {since:%Y-%m-%d %H:%M:%S} UTC)"

    @classmethod
    def of_this_process(cls, name: str) -> LockOwner:
        return cls(name, os.getpid(), time.time())

    @classmethod
    def parse(cls, line: str) -> LockOwner | None:
        """The owner in a line that ``write`` wrote; None for anything else, such as half a line."""
        try:
            record = json.loads(line)
            return cls(str(record["name"]), int(record["pid"]), float(record["since"]))
        except (ValueError, KeyError, TypeError):
            return None

    def write(self, stream: IO[str]) -> None:
        """Make this line all that the file of ``stream`` holds. Raises OSError when the disk is full."""
        # Past the stream's buffer: what cannot be written must not wait there, and fail once more at its end.
        os.ftruncate(stream.fileno(), 0)
        os.pwrite(stream.fileno(), f"{json.dumps(asdict(self))}\n".encode(), 0)


def owner_of(lock: Path) -> LockOwner | None:
    """The owner whose line was written into ``lock`` last: of meaning only while the lock is held."""
    with suppress(OSError, UnicodeDecodeError):
        return LockOwner.parse(lock.read_text())
    return None


def try_lock(lock: Path, name: str) -> IO[str] | None:
    """Take ``lock`` for oneself alone without waiting: the stream that holds it until it is closed, or None."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    stream = lock.open("a+")
    if not _locked(stream, fcntl.LOCK_EX | fcntl.LOCK_NB):
        stream.close()
        return None
    with suppress(OSError):  # a full disk: the lock holds all the same, without its owner's name
        LockOwner.of_this_process(name).write(stream)
    return stream


@contextmanager
def exclusive(
    lock: Path, name: str, condition: str, patience: float, waiting_for: Callable[[LockOwner | None], None]
) -> Iterator[bool]:
    """Hold ``lock`` for the block, which gets whether another owner had to be waited for.

    ``waiting_for`` gets each owner that is waited for. Raises TimedOut, whose text names ``condition``,
    after ``patience`` seconds.
    """
    waited_for: list[LockOwner | None] = []

    def attempt() -> IO[str] | None:
        stream = try_lock(lock, name)
        if stream is None and (owner := owner_of(lock)) not in waited_for:
            waited_for.append(owner)
            waiting_for(owner)
        return stream

    stream = wait_for(condition, attempt, Deadline(patience), evidence=lambda: f"held by {owner_of(lock)}")
    try:
        yield bool(waited_for)
    finally:
        _release(stream)


@contextmanager
def lease(directory: Path, name: str) -> Iterator[None]:
    """Keep ``directory`` from being removed by ``unleased`` for the block, also against other processes.

    Raises Gone when it was removed before.
    """
    with in_use(directory / GUARD, directory), _line(directory / OWNERS, LockOwner.of_this_process(name)):
        yield


def leases(directory: Path) -> tuple[LockOwner, ...]:
    """Who leases ``directory``, the longest one first; lines of the dead are left out."""
    owners = (_living(line) for line in (directory / OWNERS).glob("*.json"))
    return tuple(sorted((owner for owner in owners if owner), key=lambda owner: owner.since))


@contextmanager
def unleased(directory: Path) -> Iterator[bool]:
    """Yields whether ``directory`` has no lease; no other process gets one until the block ends."""
    with unused(directory / GUARD) as free:
        yield free


@contextmanager
def in_use(file: Path, leased: Path | None = None) -> Iterator[None]:
    """Keep ``file``, which stands for ``leased``, from being removed by ``unused`` for the block: a lease of one file
    whose owners need no list. Raises Gone when it was removed before."""
    error = Gone(f"{leased or file} is gone: it was removed before it could be leased", hint="ask for it anew")
    try:
        stream = file.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        raise error from None
    try:
        fcntl.flock(stream, fcntl.LOCK_SH)  # others hold it alone for moments only
        if not _still_at(stream, file):
            raise error
        yield
    finally:
        _release(stream)


@contextmanager
def unused(file: Path) -> Iterator[bool]:
    """Yields whether ``file`` is not in use; it cannot come into use until the block ends."""
    try:
        stream = file.open("rb")
    except OSError:  # it never was there: nothing could use it
        yield True
        return
    try:
        yield _locked(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        _release(stream)


@contextmanager
def _line(owners: Path, owner: LockOwner) -> Iterator[None]:
    owners.mkdir(exist_ok=True)
    _sweep(owners)
    line = owners / f"{owner.pid}-{uuid.uuid4().hex[:12]}.json"
    writing = line.with_suffix(".new")
    with writing.open("w") as stream:
        # Locked before it has its name: a line that can be locked is always one of the dead.
        fcntl.flock(stream, fcntl.LOCK_EX)
        owner.write(stream)
        writing.rename(line)
        try:
            yield
        finally:
            line.unlink(missing_ok=True)


def _sweep(owners: Path) -> None:
    for line in owners.glob("*.json"):
        if not _is_held(line):
            line.unlink(missing_ok=True)


def _living(line: Path) -> LockOwner | None:
    if not _is_held(line):
        return None
    return owner_of(line) or LockOwner("", 0, 0.0)


def _is_held(line: Path) -> bool:
    try:
        with line.open("rb") as stream:
            return not _locked(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False


def _locked(stream: IO[str] | IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(stream, how)
    except BlockingIOError:
        return False
    return True


def _release(stream: IO[str] | IO[bytes]) -> None:
    # By name, because a child that was forked meanwhile may keep the file open for longer.
    fcntl.flock(stream, fcntl.LOCK_UN)
    stream.close()


def _still_at(stream: IO[bytes], path: Path) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False
