"""A file that has no name until it is whole: the kernel frees it when its writer is killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError


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
    except OSError as refused:
        if refused.errno not in (errno.EOPNOTSUPP, errno.ENOENT, errno.EISDIR):
            raise InfrastructureError(f"cannot write to {directory}: {refused.strerror}") from refused
    return os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644), False
