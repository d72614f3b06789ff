"""What a sandbox is made of, gathered where an unprivileged user can reach it.

The monitor's own mount namespace has it in one tmpfs: the directories to show, copies that may be changed, and the
artifacts' own small file system. A path is opened once, by the monitor's rights; the user inside needs none on the
way.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from distgate.files import walk
from distgate.sandbox import kernel
from distgate.sandbox.sandbox import Limits

#: Hides this directory of the host in the monitor's namespace. It exists everywhere, and every user can enter it.
STAGE = Path("/tmp")  # noqa: S108
_SMALL = "size=16m,mode=0755"
_DEEP = 64
_PAGE = 4096


class SandboxFileSystem:
    """Gathers directories and files; every method returns the path that bubblewrap can bind."""

    def __init__(self, owner: int) -> None:
        """For a sandbox that runs as user and group ``owner``. In a mount namespace of the caller's own."""
        self._owner = owner
        self._count = 0
        self._opened: dict[Path, int] = {}

    def open(self, paths: list[Path]) -> None:
        """Take hold of ``paths`` before ``cover`` may hide them. Raises OSError for one that is not there."""
        for path in paths:
            self._opened[path] = os.open(path, os.O_PATH | os.O_CLOEXEC)

    def cover(self) -> None:
        """Put the empty stage in its place."""
        kernel.mount("distgate", str(STAGE), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, _SMALL)

    def show(self, path: Path) -> Path:
        """An opened file or directory, as it is."""
        target = self._next()
        source = self._opened[path]
        if stat.S_ISDIR(os.fstat(source).st_mode):
            target.mkdir()
        else:
            target.touch()
        kernel.mount(f"/proc/self/fd/{source}", str(target), "", kernel.MS_BIND | kernel.MS_REC)
        return target

    def copy(self, path: Path, limits: Limits, skip: frozenset[str]) -> Path:
        """A copy of an opened directory, without ``skip``, and scratch space. Raises RuntimeError for a large one."""
        source = os.open(f"/proc/self/fd/{self._opened[path]}", os.O_RDONLY | os.O_DIRECTORY)
        weight = _weight(source, skip)
        if weight > limits.copied:
            raise RuntimeError(f"{path} has {weight} bytes, more than the {limits.copied} that are copied")
        copy = self.fresh(limits.scratch + weight)
        target = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
        self._copy(source, target, skip, _DEEP)
        os.close(source)
        os.close(target)
        return copy

    def fresh(self, size: int, files: int = 100_000) -> Path:
        """An empty directory in a file system of ``size`` bytes and ``files`` files of its own."""
        directory = self._next()
        directory.mkdir()
        options = f"size={size},nr_inodes={files},mode=0755,uid={self._owner},gid={self._owner_group}"
        kernel.mount("distgate", str(directory), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)
        return directory

    def text(self, content: str) -> Path:
        """A file that everybody may read."""
        file = self._next()
        file.write_text(content)
        file.chmod(0o644)
        return file

    @property
    def _owner_group(self) -> int:
        return self._owner if os.geteuid() == 0 else os.getegid()

    def _next(self) -> Path:
        self._count += 1
        return STAGE / str(self._count)

    def _copy(self, source: int, target: int, skip: frozenset[str], depth: int) -> None:
        for entry in _entries(source, skip):
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(entry.name, dir_fd=source), entry.name, dir_fd=target)
            elif stat.S_ISREG(mode):
                _copy_file(source, target, entry.name, mode)
            elif stat.S_ISDIR(mode) and depth:
                os.mkdir(entry.name, 0o755, dir_fd=target)
                inner = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
                outer = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
                self._copy(inner, outer, skip, depth - 1)
                os.close(inner)
                os.close(outer)
            else:
                continue
            if os.geteuid() == 0:
                os.chown(entry.name, self._owner, self._owner, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str, mode: int) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    outer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
    with os.fdopen(inner, "rb") as original, os.fdopen(outer, "wb") as copy:
        os.fchmod(outer, 0o600 | mode & 0o755)
        shutil.copyfileobj(original, copy)


def _entries(directory: int, skip: frozenset[str]) -> list[os.DirEntry[str]]:
    with os.scandir(directory) as entries:
        return [entry for entry in entries if entry.name not in skip]


def _weight(directory: int, skip: frozenset[str]) -> int:
    """The bytes that a tmpfs needs for what is below a directory."""
    entries = walk(directory, lambda entry: entry.name not in skip)
    sizes = (entry.status.st_size for entry in entries if not (entry.is_directory or entry.name in skip))
    return sum(-(-size // _PAGE) * _PAGE for size in sizes)
