"""What must hold before a lab is started: no other start, directories that can be written, none half up."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distgate.errors import ConfigurationError
from lab import teardown
from lab.servers.process_table import MARKER


def ensure_writable(directory: Path, setting: str, mode: int) -> None:
    """Make ``directory`` unless it is there. Raises ConfigurationError, which names ``setting``, when nothing can be
    written to it."""
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"the lab cannot write to {directory}: {error.strerror}", hint=f"{setting} names another directory"
        ) from error


def refuse_half_up(state: Path) -> None:
    """Raise ConfigurationError when things of a lab are in ``state`` that is neither up nor down."""
    leftovers = teardown.leftovers(state)
    if leftovers:
        raise ConfigurationError(
            f"the lab in {state} is half up: {len(leftovers)} things of it are there",
            hint="./run lab down ends them",
            evidence="\n".join(leftovers),
        )


@contextmanager
def starting(state: Path) -> Iterator[None]:
    """Hold the right to start this lab, and mark what we start on the way, also for our end by kill -9."""
    with (state / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another process is starting the lab in {state}", hint="./run lab down ends that, too"
            ) from error
        before = os.environ.get(MARKER)
        os.environ[MARKER] = str(state)
        try:
            yield
        finally:
            teardown.forget_starter(state)
            os.environ.pop(MARKER)
            if before is not None:
                os.environ[MARKER] = before
