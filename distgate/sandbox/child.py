"""A child that lives in a private mount and process namespace and dies with its caller.

Whatever it had started ends with it then, and its mounts are undone by the kernel: nothing has to be cleaned up.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.steps import Progress


def in_namespaces(module: str, task: Path, told: int) -> list[str | Path]:
    """The argument list that runs ``python -m MODULE TASK TOLD`` as process 1 of such a namespace.

    An ordinary user becomes root of a user namespace with it.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    return [
        # If we are killed, unshare is; if it is, its child is, and with that one everything in the namespaces.
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", *user, "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"),
        *(sys.executable, "-m", module, task, str(told)),
    ]


@contextmanager
def progress_pipe(progress: Progress) -> Iterator[int]:
    """A file to write lines for ``progress`` to, for children; they are all told when this ends."""
    reading, writing = os.pipe()

    def listen() -> None:
        with os.fdopen(reading, errors="replace") as lines:
            for line in lines:
                progress(line.rstrip("\n"))

    # In the caller's context: Prefect's loggers find their run by it.
    listener = threading.Thread(target=contextvars.copy_context().run, args=(listen,), daemon=True)
    listener.start()
    try:
        yield writing
    finally:
        os.close(writing)
        listener.join(timeout=5)  # a process that outlives the kill for a moment may hold it open


def tell(told: int, line: str) -> None:
    """Write a line for the caller's ``progress``, from within the child."""
    try:
        os.write(told, f"{line}\n".encode())
    except OSError:  # nobody listens
        return
