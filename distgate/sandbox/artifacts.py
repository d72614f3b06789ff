"""Files that strangers left, brought out of a sandbox: regular ones with harmless names, and not without end."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from distgate.text import printable

#: The file that lists, a line each, what was dropped and why; there only when something was.
LISTING = "dropped.txt"
_LISTED = 200
_DEPTH = 16
_NAME = 200
_CHUNK = 1 << 20
_AWKWARD = re.compile(r"[\s\\]+")


@dataclass
class Export:
    """What may still come out, in bytes and files, and what did not."""

    bytes_left: int
    files_left: int
    dropped: list[str] = field(default_factory=list)
    unlisted: int = 0

    def drop(self, name: str, reason: str) -> None:
        """Remember that a file stays behind."""
        if len(self.dropped) < _LISTED:
            self.dropped.append(f"{name}: {reason}")
        else:
            self.unlisted += 1

    @property
    def lines(self) -> list[str]:
        """What was dropped, a line each; a long list ends with a count."""
        return [*self.dropped, *([f"and {self.unlisted} more"] if self.unlisted else [])]


def export(source: int, target: int, max_bytes: int, max_files: int) -> Export:
    """Copy the regular files below the directory descriptor ``source`` into ``target``, both owned by the caller.

    Links, devices, sockets and pipes stay behind, as does what exceeds ``max_bytes`` or ``max_files`` in all; no
    file of ``target`` is replaced. Nothing may change ``source`` meanwhile.
    """
    done = Export(max_bytes, max_files)
    _directory(source, target, "", 0, done)
    if done.dropped:
        _write(target, LISTING, "".join(f"{line}\n" for line in done.lines).encode())
    return done


def harmless(name: str) -> str:
    """A file name of printable UTF-8 without white space, never empty, ``.`` or ``..``, at most 200 bytes long."""
    whole = "".join(
        f"%{ord(character) & 0xFF:02X}" if 0xDC80 <= ord(character) <= 0xDCFF else character for character in name
    )
    plain = _AWKWARD.sub("_", printable(whole, newlines=False)).replace("/", "_")
    short = plain.encode()[:_NAME].decode("utf-8", "ignore")
    return short if short.strip(".") else f"_{short}"


def _directory(source: int, target: int, where: str, depth: int, done: Export) -> None:
    for entry, safe_name in _entries(source):
        name = f"{where}{safe_name}"
        mode = entry.stat(follow_symlinks=False).st_mode
        if name == LISTING:
            done.drop(name, "the name is taken")
        elif stat.S_ISDIR(mode) and depth < _DEPTH:
            _subdirectory(source, target, entry.name, safe_name, name, depth, done)
        elif stat.S_ISREG(mode):
            _file(source, target, entry.name, safe_name, name, done)
        else:
            done.drop(name, _kind(mode) if not stat.S_ISDIR(mode) else "too deep")


def _entries(directory: int) -> Iterator[tuple[os.DirEntry[str], str]]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield entry, harmless(entry.name)


def _subdirectory(source: int, target: int, raw: str, safe_name: str, name: str, depth: int, done: Export) -> None:
    inner = os.open(raw, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=source)
    try:
        with os.scandir(inner) as entries:
            if next(entries, None) is None:
                return  # an empty directory tells nothing
        if done.files_left <= 0:
            done.drop(name, "too many files")
            return
        done.files_left -= 1
        try:
            os.mkdir(safe_name, 0o755, dir_fd=target)
        except FileExistsError:
            done.drop(name, "the name is taken")
            return
        outer = os.open(safe_name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=target)
        try:
            _directory(inner, outer, f"{name}/", depth + 1, done)
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def _file(source: int, target: int, raw: str, safe_name: str, name: str, done: Export) -> None:
    inner = os.open(raw, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    try:
        size = os.fstat(inner).st_size  # not the blocks: a hole is copied as zeros
        if done.files_left <= 0:
            done.drop(name, "too many files")
        elif size > done.bytes_left:
            done.drop(name, f"{size} bytes are more than the {done.bytes_left} that were left")
        elif not _write(target, safe_name, inner):
            done.drop(name, "the name is taken")
        else:
            done.bytes_left -= size
            done.files_left -= 1
    finally:
        os.close(inner)


def _write(target: int, name: str, content: bytes | int) -> bool:
    try:
        outer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=target)
    except FileExistsError:
        return False
    with os.fdopen(outer, "wb") as stream:
        if isinstance(content, bytes):
            stream.write(content)
        else:
            while chunk := os.read(content, _CHUNK):
                stream.write(chunk)
    return True


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "link"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))
    return f"a {next((kind for test, kind in kinds if test(mode)), 'device')}, not a regular file"
