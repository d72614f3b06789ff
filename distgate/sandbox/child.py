"""Child processes in a mount and process namespace of their own, which die with their caller.

What such a child has started ends with it, and the kernel undoes its mounts: nothing has to be cleaned up. It gets a
task, a record, and leaves an answer, another one, and a report of its steps beside it.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distgate.errors import ConfigurationError, DistgateError, Failure, InfrastructureError
from distgate.files import TAIL, tail_of
from distgate.process import run
from distgate.records import read_record, write_record
from distgate.steps import Progress, Step, Steps

T = TypeVar("T")
TASK, ANSWER, REPORT = "task.json", "answer.json", "report.json"


class NoReport(InfrastructureError):
    """A child ended before it wrote its report."""


@dataclass(frozen=True)
class Report:
    """The steps that a child took, and what it failed with."""

    steps: tuple[Step, ...]
    failure: Failure | None = None


def run_in_namespaces(
    module: str,
    task: Any,
    workspace: Path,
    *,
    log: Path,
    timeout: float,
    progress: Progress,
    pass_fds: Sequence[int] = (),
    evidence: int = TAIL,
) -> tuple[Step, ...]:
    """Run ``python -m MODULE`` as process 1 of its namespaces, to carry out ``task`` as ``carry_out`` there does.

    Returns its steps; its answer is the record ANSWER in ``workspace``. Its output is appended to ``log``; the files
    ``pass_fds`` stay open in it. An ordinary user becomes root of a user namespace with it.

    Raises what the child failed with, by its blame, with the last ``evidence`` bytes of the log where it had none of
    its own; NoReport when it was ended from outside; ProcessTimedOut after ``timeout`` seconds.
    """
    write_record(workspace / TASK, task)
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    with _progress_pipe(progress) as pipe_fd:
        argv: list[str | Path] = [
            # If we are killed, unshare is; if it is, its child is, and with that one everything in the namespaces.
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", *user, "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"),
            *(sys.executable, "-m", module, workspace, str(pipe_fd)),
        ]
        run(
            argv,
            timeout=timeout,
            log_to=log,
            error=InfrastructureError,
            allowed=(0, 1),
            pass_fds=(pipe_fd, *pass_fds),
        )
    try:
        report = read_record(workspace / REPORT, Report)
    except (OSError, ConfigurationError):
        raise NoReport(f"{module} ended without a report", evidence=tail_of(log, evidence)) from None
    if report.failure:
        raise report.failure.error(evidence=tail_of(log, evidence))
    return report.steps


def carry_out(kind: type[T], work: Callable[[T, Path, Steps], Any]) -> int:
    """Run ``work`` as a child's whole life: it gets the task, the directory of the task, and the steps to time, and
    returns the answer. Returns the exit status."""
    workspace, pipe_fd = Path(sys.argv[1]), int(sys.argv[2])
    steps = Steps(lambda line: send_progress(pipe_fd, line))
    failure = None
    try:
        write_record(workspace / ANSWER, work(read_record(workspace / TASK, kind), workspace, steps))
    except DistgateError as error:
        failure = Failure.of(error)
    write_record(workspace / REPORT, Report(steps.taken, failure))
    return 1 if failure else 0


@contextmanager
def _progress_pipe(progress: Progress) -> Iterator[int]:
    """A file to write lines for ``progress`` to, for children; all of them have arrived when this ends."""
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


def send_progress(pipe_fd: int, line: str) -> None:
    """Write a line for the caller's ``progress``, from within the child."""
    try:
        os.write(pipe_fd, f"{line}\n".encode())
    except OSError:  # the caller is gone
        return
