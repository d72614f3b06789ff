"""Long processes of a Koji task: logged to a file, stopped with their whole tree when the task is cancelled."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from distgate.process import kill_group, spawn
from distgate.waiting import Deadline

_LOOK_SECONDS = 0.2


class TaskStopped(Exception):
    """The task was cancelled, or the hub is going down, while a process of it ran."""


def run_logged(argv: Sequence[str | Path], log: Path, stop: threading.Event, timeout: float, **env: str) -> int:
    """Run ``argv`` with its output appended to ``log`` and return its exit status.

    The process dies with this one: its group is killed when ``stop`` is set (TaskStopped) and after ``timeout``
    seconds (status 124, as timeout(1) has it), and the kernel kills it when this process is gone.
    """
    guarded = ["setpriv", "--pdeathsig", "KILL", *argv]
    child = spawn(guarded, log_to=log, env=env)
    try:
        return _wait(child, stop, Deadline(timeout), log)
    finally:
        if child.poll() is None:
            kill_group(child.pid)
            child.wait()


def _wait(child: subprocess.Popen[bytes], stop: threading.Event, deadline: Deadline, log: Path) -> int:
    while True:
        try:
            return child.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if stop.is_set():
                raise TaskStopped from None
            if deadline.passed:
                with log.open("a") as stream:
                    stream.write(f"killed after {deadline.seconds:g} s\n")
                return 124
