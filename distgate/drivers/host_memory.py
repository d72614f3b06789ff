"""What is costly to find out about this host, kept across processes in the user's cache: nothing there is missed."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def directory() -> Path:
    """Where it is kept: ``$XDG_CACHE_HOME/distgate/host``, ``~/.cache/distgate/host`` without that variable."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if Path(cache).is_absolute() else Path("~/.cache").expanduser()) / "distgate" / "host"


def keep(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent at any moment; a cache that cannot be written is no error."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content)
            Path(draft).replace(path)
        finally:
            Path(draft).unlink(missing_ok=True)


def boot_id() -> str:
    """What tells this boot of the host from every other; empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""
