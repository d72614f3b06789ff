"""Logs of strangers' programs and consoles of guests, which cannot fill the disk, and which a terminal can show."""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from distgate.text import printable

#: Characters that are looked at in one piece: a line without an end is cut there.
_PIECE = 1 << 16
# Most output is plain; a look at each character of it would cost more than printing it.
_PLAIN = re.compile(r"[\t\n\x20-\x7e]*")


class CappedLog:
    """Keeps the first half of ``limit`` bytes as they come and the last half at the end, and counts what it drops.

    Terminal escapes, control characters and what is not UTF-8 never reach the file.
    """

    def __init__(self, sink: IO[bytes], limit: int) -> None:
        self.dropped = 0
        self._sink = sink
        self._room = limit // 2
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._tail_limit = limit // 2
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = ""

    def write(self, data: bytes) -> None:
        """Take the next bytes; whole lines are in the file when this returns, as long as there is space left."""
        if self._room <= 0 and len(data) >= self._tail_limit:  # nothing before these bytes will be kept
            self.dropped += self._tail_size + len(data) - self._tail_limit
            self._tail.clear()
            self._tail_size = 0
            data = data[-self._tail_limit :]
        if self._room <= 0:
            self._remember(data)
            return
        text = self._pending + self._decoder.decode(data)
        end = len(text) if len(text) > _PIECE else text.rfind("\n") + 1
        self._pending = text[end:]
        self._put(text[:end])

    def close(self) -> None:
        """Write what was held back; the sink stays open."""
        self._put(self._pending + self._decoder.decode(b"", final=True))
        if self.dropped:
            self._sink.write(f"\n[distgate: {self.dropped} bytes of output were dropped here]\n".encode())
        self._sink.write(_shown(b"".join(self._tail).decode("utf-8", "replace")))
        self._sink.flush()

    def _put(self, text: str) -> None:
        printed = _shown(text)
        self._sink.write(printed)
        self._sink.flush()
        self._room -= len(printed)

    def _remember(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_size += len(data)
        while self._tail_size - len(self._tail[0]) >= self._tail_limit:
            dropped = len(self._tail.popleft())
            self._tail_size -= dropped
            self.dropped += dropped


def _shown(text: str) -> bytes:
    text = text.replace("\r\n", "\n")  # a pseudo-terminal ends its lines so
    return (text if _PLAIN.fullmatch(text) else printable(text)).encode()


log = logging.getLogger(__name__)

#: Bytes at which a console's file is shortened, and of its end that are then kept.
LIMIT, KEPT = 16 << 20, 1 << 20
#: Seconds between looks; an emulated serial port takes some megabytes in that time.
LOOK = 1.0


@contextlib.contextmanager
def limited(console: Path, limit: int = LIMIT, remaining: int = KEPT, look: float = LOOK) -> Iterator[None]:
    """While this lasts, shorten ``console`` to its last ``remaining`` bytes whenever it has more than ``limit``.

    Its writer must append (O_APPEND): it goes on behind what remains.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(look):
            with contextlib.suppress(OSError):
                _shorten(console, limit, remaining)

    watcher = threading.Thread(target=watch, name=f"limit of {console.name}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _shorten(console: Path, limit: int, remaining: int) -> None:
    size = console.stat().st_size
    if size <= limit:
        return
    with console.open("r+b") as stream:
        stream.seek(size - remaining)
        end = stream.read(remaining)
    os.truncate(console, 0)
    with console.open("ab") as stream:
        stream.write(f"[distgate: {size - len(end)} bytes were dropped here]\n".encode() + end)
    log.warning("%s was shortened: it had %d bytes", console, size)
