"""Files written whole, ends of logs, and directories walked and removed, whatever strangers left in them."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from distgate.errors import InfrastructureError

#: The file of a run's record in the directory of the run (distgate.runs.record).
RUN_RECORD = "run.json"
#: Bytes of a log's end that are evidence for people.
TAIL = 4000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def open_plain(path: Path) -> BinaryIO | None:
    """A file of a stranger, or None when it is no regular one. Raises OSError, for a link too.

    Does not wait for the writer of a pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return stream
    stream.close()
    return None


def tail_of(path: Path, size: int = TAIL) -> str:
    """The last ``size`` bytes of a file as text; nothing for what is no regular file, such as a link or a pipe."""
    try:
        stream = open_plain(path)
    except OSError:
        return ""
    if stream is None:
        return ""
    with stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
        return stream.read(size).decode("utf-8", "replace")


@dataclass(frozen=True)
class TreeEntry:
    """Something below the top of a walk: its name, what lstat says of it, and the directories above, outermost first.

    ``above`` changes as soon as the walk goes on.
    """

    name: str
    status: os.stat_result
    above: Sequence[str]

    @property
    def path(self) -> Path:
        """Where it is, relative to the top; it may be longer than the kernel takes."""
        return Path(*self.above, self.name)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def walk(top: Path | int, enter: Callable[[TreeEntry], bool] = lambda _entry: True) -> Iterator[TreeEntry]:
    """Everything below the directory ``top`` (a path or an open descriptor), in the order of names.

    All entries of a directory come before those of its subdirectories; ``enter`` says which of these to look into.
    No link below ``top`` is followed, and nothing lies too deep. What cannot be read, or vanishes meanwhile, is
    passed over; where a directory is moved elsewhere meanwhile, the walk ends.
    """
    try:
        position = _Position(os.open(top, os.O_RDONLY | os.O_DIRECTORY) if isinstance(top, Path) else os.dup(top))
    except OSError:
        return
    waiting: list[list[str]] = []
    try:
        while True:
            names = []
            for entry in position.entries():
                yield entry
                if entry.is_directory and enter(entry):
                    names.append(entry.name)
            waiting.append(names[::-1])
            while not (waiting[-1] and position.down(waiting[-1].pop())):
                if not waiting[-1]:
                    waiting.pop()
                    if not waiting or not position.up():
                        return
    finally:
        position.close()


class _Position:
    """A directory that is reached from another in single steps: a path has a greatest length, and a tree has none."""

    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._names: list[str] = []
        self._outer: list[os.stat_result] = []

    def entries(self) -> list[TreeEntry]:
        tree_entries = []
        with suppress(OSError), os.scandir(self._directory) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                with suppress(OSError):
                    tree_entries.append(TreeEntry(entry.name, entry.stat(follow_symlinks=False), self._names))
        return tree_entries

    def down(self, name: str) -> bool:
        """Step into a subdirectory; False when it cannot be read, or could not be left again."""
        outer = os.fstat(self._directory)
        with suppress(OSError):
            inner = os.open(name, _DIRECTORY, dir_fd=self._directory)
            if not _is_at("..", inner, outer):
                os.close(inner)
                return False
            self._move(inner)
            self._names.append(name)
            self._outer.append(outer)
            return True
        return False

    def up(self) -> bool:
        """Step back; False when this directory is elsewhere by now."""
        if not _is_at("..", self._directory, self._outer.pop()):
            return False
        self._move(os.open("..", _DIRECTORY, dir_fd=self._directory))
        self._names.pop()
        return True

    def close(self) -> None:
        os.close(self._directory)

    def _move(self, directory: int) -> None:
        os.close(self._directory)
        self._directory = directory


def _is_at(name: str, directory: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory), status)
    except OSError:
        return False


def disk_usage(path: Path) -> int:
    """The bytes of disk that a file, or all below a directory, really takes; one that vanishes takes none."""
    try:
        top = path.lstat()
    except OSError:
        return 0
    below = walk(path) if stat.S_ISDIR(top.st_mode) else ()
    statuses = (top, *(entry.status for entry in below))
    return sum({(status.st_dev, status.st_ino): status.st_blocks * 512 for status in statuses}.values())


def remove_tree(top: Path, *, ignore_errors: bool = False) -> None:
    """Remove the directory ``top`` and all below it, however deep it is and whatever its permissions are.

    No link is followed. What cannot be removed stays, without the rest: then, and when ``top`` is no directory, this
    raises the first OSError at the end, unless ``ignore_errors``.
    """
    removal = _Removal()
    with removal.attempt():
        directory = os.open(top.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            removal.remove(top.name, directory)
        finally:
            os.close(directory)
    if removal.problem and not ignore_errors:
        raise removal.problem


class _Removal:
    """Removes a tree from above: subdirectories move up to the top, so that no path and no stack grows with depth."""

    def __init__(self) -> None:
        self.problem: OSError | None = None

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Keep the first problem that the block meets, and go on."""
        try:
            yield
        except OSError as error:
            self.problem = self.problem or error

    def remove(self, name: str, parent: int) -> None:
        top = _writable(name, parent)
        try:
            waiting = self._empty(top, top)
            while waiting:
                folder = waiting.pop()
                with self.attempt():
                    directory = _writable(folder, top)
                    try:
                        waiting += self._empty(directory, top)
                    finally:
                        os.close(directory)
                    os.rmdir(folder, dir_fd=top)
        finally:
            os.close(top)
        os.rmdir(name, dir_fd=parent)

    def _empty(self, directory: int, top: int) -> list[str]:
        """Remove the files of a directory and move its subdirectories to ``top``; the names that these have there."""
        with os.scandir(directory) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        moved = []
        for name, is_directory in names:
            with self.attempt(), suppress(FileNotFoundError):
                if not is_directory:
                    os.unlink(name, dir_fd=directory)
                elif directory == top:
                    moved.append(name)
                else:
                    os.close(_writable(name, directory))  # else its owner could not move it
                    fresh = f".removed-{uuid.uuid4().hex}"
                    os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=top)
                    moved.append(fresh)
        return moved


def _writable(name: str, parent: int) -> int:
    """A descriptor of a directory, whose owner may do anything in it from now on."""
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        with suppress(OSError):
            if os.fstat(handle).st_mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
    finally:
        os.close(handle)


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


def host_cache() -> Path:
    """Where this user keeps what is costly to find out about the host, so that nothing is lost without it:
    ``$XDG_CACHE_HOME/distgate/host``, or ``~/.cache/distgate/host``."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path("~/.cache").expanduser()) / "distgate" / "host"


def write_cached(path: Path, content: bytes) -> None:
    """Write a file of the cache; one that cannot be written is no error."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, content, mode=0o600)


def boot_id() -> str:
    """What tells this boot of the host from every other; empty where the kernel does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
