"""A file that has no name until it is whole: the kernel frees it when its writer is killed.

What is costly to find out about this host, kept across processes in the user's cache: nothing there is missed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError

#: The file of a run's record in the directory of the run (distgate.runs.record).
RUN_RECORD = "run.json"


@dataclass(frozen=True)
class UnfinishedImage:
    """An open file: ``number`` is its descriptor, ``path`` leads other processes of ours to it while it is open."""

    number: int
    hidden: Path
    nameless: bool

    @property
    def path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.number}")

    @property
    def path_for_child(self) -> Path:
        """The same for process 1 of a process namespace that inherits the file, and for that one's children."""
        return Path(f"/proc/1/fd/{self.number}")

    def publish(self, into: Path) -> None:
        """Give it its name, replacing what has it."""
        if self.nameless:
            self.hidden.unlink(missing_ok=True)
            directory = os.open(into.parent, os.O_PATH)
            try:  # only with a directory does Python follow the link to the file itself
                os.link(f"/proc/self/fd/{self.number}", self.hidden.name, dst_dir_fd=directory)
            finally:
                os.close(directory)
        self.hidden.rename(into)


@contextmanager
def unfinished(into: Path) -> Iterator[UnfinishedImage]:
    """An empty file that can become ``into``; gone afterwards unless it was published.

    Where the file system knows no nameless files it has a hidden name beside ``into`` meanwhile.
    """
    hidden = into.with_name(f".{into.name}.composing")
    number, nameless = _open(into.parent, hidden)
    try:
        yield UnfinishedImage(number, hidden, nameless)
    finally:
        os.close(number)
        hidden.unlink(missing_ok=True)


def _open(directory: Path, hidden: Path) -> tuple[int, bool]:
    try:
        with suppress(IsADirectoryError):
            return os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o644), True
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.EISDIR):
            raise InfrastructureError(f"cannot write to {directory}: {error.strerror}") from error
    return os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644), False


def directory() -> Path:
    """Where it is kept: ``$XDG_CACHE_HOME/distgate/host``, ``~/.cache/distgate/host`` without that variable."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path("~/.cache").expanduser()) / "distgate" / "host"


def keep(path: Path, content: bytes) -> None:
    """Write a file of the cache; one that cannot be written is no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, content, mode=0o600)


def boot_id() -> str:
    """What tells this boot of the host from every other; empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_whole(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file, to the disk, so that readers see the old content or the new one, whatever happens to us.

    Several writers do not disturb each other: the last one to finish wins. The file's permissions are ``mode``, or
    those of any new file. Raises OSError, and leaves nothing then.
    """
    with draft_of(path) as draft:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
        with open(descriptor, "wb") as stream:
            if mode is not None:
                os.fchmod(descriptor, mode)
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(descriptor)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """The name beside ``path`` under which the block makes the file, or the link, that takes its place at the end.

    No other process drafts under that name, and nothing is left of it when the block fails.
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.new")
    try:
        yield draft
        draft.replace(path)
        _sync_directory(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # there are file systems that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_usage(path: Path) -> int:
    """The bytes of disk that a file, or all below a directory, really takes; one that vanishes takes none."""
    seen: dict[tuple[int, int], int] = {}
    for one in (path, *path.rglob("*")):
        try:
            status = one.lstat()
        except OSError:
            continue
        seen[(status.st_dev, status.st_ino)] = status.st_blocks * 512
    return sum(seen.values())
