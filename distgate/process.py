"""The one place that starts processes: argument lists, a listed environment, a deadline, a group to kill."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.files import TAIL, tail_of

log = logging.getLogger(__name__)

#: What a child sees of our environment unless the caller lists more: no credential ever travels by default.
#: DISTGATE_LAB names the lab a process belongs to: `lab down` finds by it what no record names.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "USER", "LOGNAME", "DISTGATE_LAB")
#: Seconds in which the output of a killed process is read to its end.
DRAIN_SECONDS = 2.0


@dataclass(frozen=True)
class Completed:
    """A process that ended by itself: its exit status and its output (stderr merged in unless split)."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    errors: str = ""


class ProcessFailed(InfrastructureError):
    """A process ended with a status that the caller did not allow; ``evidence`` is its output's end."""

    def __init__(
        self, message: str, *, hint: str = "", evidence: str = "", completed: Completed | None = None
    ) -> None:
        super().__init__(message, hint=hint, evidence=evidence)
        self.completed = completed


class ProcessTimedOut(InfrastructureError):
    """A process was killed, with its whole group, at its deadline."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: the few harmless names of PASSED_ON, and what ``extra`` lists."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | dict(extra or {})


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    log_to: Path | None = None,
    allowed: Sequence[int] = (0,),
    split_errors: bool = False,
    error: type[DistgateError] | None = None,
    hint: str = "",
    pass_fds: Sequence[int] = (),
    most: int | None = None,
) -> Completed:
    """Run ``argv`` to its end and return its output, decoded with replacement.

    ``env`` is added to the few names of PASSED_ON; ``log_to`` appends the output to a file instead of keeping
    it in memory (``output`` is then that file's tail); ``error`` is the class to raise for a status outside
    ``allowed`` (ProcessFailed unless given); the child inherits ``pass_fds``. Of a stranger's program, the first
    ``most`` bytes of either output are kept. Raises ProcessTimedOut after ``timeout`` seconds, and
    ConfigurationError when the program does not exist.
    """
    command = [os.fspath(argument) for argument in argv]
    log.debug("run: %s", shlex.join(command))
    sink = log_to.open("ab") if log_to else None
    try:
        child = _start(command, env, cwd, stdin is not None, sink, split_errors, pass_fds)
        out, err = _communicate(child, stdin, timeout, command, log_to, most)
    finally:
        if sink:
            sink.close()
    output = tail_of(log_to) if log_to else out
    completed = Completed(tuple(command), child.returncode, output, err)
    if child.returncode not in allowed:
        raise _failure(completed, error, hint)
    return completed


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    log_to: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that outlives this call, in its own session, with its output appended to ``log_to``.

    It reads nothing and sees only PASSED_ON and ``env``. The caller must end and reap it. Raises
    ConfigurationError when the program does not exist.
    """
    command = [os.fspath(argument) for argument in argv]
    log.debug("spawn: %s", shlex.join(command))
    with log_to.open("ab") as sink:
        return _start(command, env, cwd, False, sink, False)


@contextlib.contextmanager
def background(argv: Sequence[str | os.PathLike[str]], *, ready_line: str, timeout: float) -> Iterator[int]:
    """A process that runs as long as the body, such as one that holds a lock for it; the body gets its process ID.

    The body begins once the process has printed ``ready_line``. It is to end at the end of its input, which comes
    when the body ends, and also when this process is killed. Raises ProcessFailed, with its output, when it ends
    before that line, and ProcessTimedOut when the line does not come within ``timeout`` seconds.
    """
    command = [os.fspath(argument) for argument in argv]
    log.debug("background: %s", shlex.join(command))
    child = _start(command, None, None, True, None, False)
    try:
        output = _until_line(child, ready_line, timeout)
        if output is not None:
            raise ProcessFailed(f"{Path(command[0]).name} ended before it said {ready_line!r}", evidence=output)
        yield child.pid
    finally:
        _let_go(child)


def _until_line(child: subprocess.Popen[bytes], ready_line: str, timeout: float) -> str | None:
    """None once ``child`` has said the line ``ready_line``; what it said when it ended without."""
    assert child.stdout  # noqa: S101 - it was started with a pipe
    end, output = time.monotonic() + timeout, bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(child.stdout, selectors.EVENT_READ)
        while ready_line.encode() not in output.split(b"\n")[:-1]:
            if not ready.select(max(0.0, end - time.monotonic())):
                raise ProcessTimedOut(
                    f"{ready_line!r} was not said within {timeout:g} s", evidence=output.decode("utf-8", "replace")
                )
            data = os.read(child.stdout.fileno(), 1 << 12)
            output += data
            if not data:
                return output.decode("utf-8", "replace")[-TAIL:]
    return None


def _let_go(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe:
            pipe.close()
    try:
        child.wait(DRAIN_SECONDS)
    except subprocess.TimeoutExpired:
        kill_group(child.pid)
        child.wait()


class Started:
    """A process of ours that runs; its starter waits for it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.pidfd = os.pidfd_open(child.pid)

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()

    def wait(self) -> int:
        """Its status, once it has ended: negative when a signal did it."""
        return self._child.wait()


def start(argv: Sequence[str], *, output: int, pass_fds: Sequence[int] = (), user: int | None = None) -> Started:
    """Start a process whose whole output goes to the descriptor ``output`` and that inherits ``pass_fds`` besides.

    It reads nothing, sees PATH alone of our environment, and is ``user`` with the group of the same number and no
    other (ourselves when None). Raises ConfigurationError when the program does not exist.
    """
    log.debug("start: %s", shlex.join(argv))
    identity: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    try:
        return Started(
            subprocess.Popen(
                argv,
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
                **identity,
            )
        )
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"cannot start {argv[0]}: {error.strerror}", hint="./run installs what distgate needs"
        ) from error


def kill_group(pid: int, sig: int = signal.SIGKILL) -> None:
    """Signal a whole process group; one that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)


def on_path(program: str) -> bool:
    """Whether ``program`` can be started here (also from sbin, which ordinary users often lack)."""
    import shutil

    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None


def _start(
    command: list[str],
    env: Mapping[str, str] | None,
    cwd: Path | None,
    fed: bool,
    sink: IO[bytes] | None,
    split: bool,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            env=environment(env),
            cwd=cwd,
            stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
            stdout=sink or subprocess.PIPE,
            stderr=subprocess.PIPE if split else subprocess.STDOUT,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        where = f" in {cwd}" if cwd and not cwd.is_dir() else ""
        raise ConfigurationError(
            f"cannot start {command[0]}{where}: {error.strerror}", hint="./run installs what distgate needs"
        ) from error


def _communicate(
    child: subprocess.Popen[bytes],
    stdin: str | None,
    timeout: float,
    command: list[str],
    log_to: Path | None,
    most: int | None,
) -> tuple[str, str]:
    out: bytes | None
    err: bytes | None
    try:
        if most is None:
            out, err = child.communicate(stdin.encode() if stdin is not None else None, timeout=timeout)
        else:
            out, err = _beginnings(child, timeout, most)
    except subprocess.TimeoutExpired:
        kill_group(child.pid)
        output = _rest_of(child)
        seen = tail_of(log_to) if log_to else output.decode("utf-8", "replace")[-TAIL:]
        raise ProcessTimedOut(
            f"{Path(command[0]).name} was killed after {timeout:g} s: {shlex.join(command)}", evidence=seen
        ) from None
    except BaseException:
        kill_group(child.pid)
        child.wait()
        raise
    return (out or b"").decode("utf-8", "replace"), (err or b"").decode("utf-8", "replace")


def _beginnings(child: subprocess.Popen[bytes], timeout: float, most: int) -> tuple[bytes, bytes]:
    """The first ``most`` bytes of each output, read to its end. Raises TimeoutExpired as communicate does."""
    end = time.monotonic() + timeout
    beginnings = {pipe: bytearray() for pipe in (child.stdout, child.stderr) if pipe}
    with selectors.DefaultSelector() as ready:
        for pipe in beginnings:
            ready.register(pipe, selectors.EVENT_READ)
        while ready.get_map():
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise subprocess.TimeoutExpired(child.args, timeout)
            for key, _ in ready.select(remaining):
                data = os.read(key.fd, 1 << 16)
                into = beginnings[cast("IO[bytes]", key.fileobj)]
                into += data[: max(0, most - len(into))]
                if not data:
                    ready.unregister(key.fileobj)
    child.wait(max(0.0, end - time.monotonic()))
    for pipe in beginnings:
        pipe.close()
    out, err = (bytes(beginnings[pipe]) if pipe else b"" for pipe in (child.stdout, child.stderr))
    return out, err


def _rest_of(child: subprocess.Popen[bytes]) -> bytes:
    """What a killed process had said. A descendant in a session of its own lives on and may hold the pipe open."""
    output: bytes | None
    try:
        output, _ = child.communicate(timeout=DRAIN_SECONDS)
    except subprocess.TimeoutExpired as error:
        output = error.stdout
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                pipe.close()
        child.wait()
    return output or b""


def _failure(completed: Completed, error: type[DistgateError] | None, hint: str) -> DistgateError:
    evidence = (completed.errors or completed.output)[-TAIL:]
    command = shlex.join(completed.argv)
    text = f"{Path(completed.argv[0]).name} ended with status {completed.returncode}: {command}"
    if error is None:
        return ProcessFailed(text, hint=hint, evidence=evidence, completed=completed)
    return error(text, hint=hint, evidence=evidence)
