"""A guest's serial console as a file that cannot fill the disk: whoever is root in there can write without end."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

#: Bytes at which a console's file is shortened, and of its end that are then kept.
LIMIT, KEPT = 16 << 20, 1 << 20
#: Seconds between looks; an emulated serial port takes some megabytes in that time.
LOOK = 1.0


@contextlib.contextmanager
def limited(console: Path, limit: int = LIMIT, kept: int = KEPT, look: float = LOOK) -> Iterator[None]:
    """While this lasts, shorten ``console`` to its last ``kept`` bytes whenever it has more than ``limit``.

    Whoever writes it must append (O_APPEND): it goes on behind what is kept.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(look):
            with contextlib.suppress(OSError):
                _shorten(console, limit, kept)

    watcher = threading.Thread(target=watch, name=f"limit of {console.name}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _shorten(console: Path, limit: int, kept: int) -> None:
    size = console.stat().st_size
    if size <= limit:
        return
    with console.open("r+b") as stream:
        stream.seek(size - kept)
        end = stream.read(kept)
    os.truncate(console, 0)
    with console.open("ab") as stream:
        stream.write(f"[distgate: {size - len(end)} bytes were dropped here]\n".encode() + end)
    log.warning("%s was shortened: it had %d bytes", console, size)
