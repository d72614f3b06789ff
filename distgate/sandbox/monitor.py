"""The process that builds one sandbox, runs one program in it, and brings out what the program left.

It has the worker's rights and the program has none. It ends with the worker, and the sandbox with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import re
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from distgate.bounded_logs import CappedLog
from distgate.process import Started, start
from distgate.sandbox import kernel
from distgate.sandbox.artifacts import Export, export
from distgate.sandbox.bubblewrap import REPORT, STATUS, bubblewrap
from distgate.sandbox.file_system import SandboxFileSystem
from distgate.sandbox.relay import GuestRelay
from distgate.sandbox.sandbox import CANNOT, MonitorSpec, SandboxRun

#: systemd's range for users that exist for one service only: no file of this host is theirs.
_FIRST_USER, _LAST_USER = 61184, 65519
#: When memory runs out, the kernel ends a sandbox first.
_OOM_SCORE = 900
_CHILD, _EXIT_CODE = (re.compile(rb'"%s": (\d+)\D' % name) for name in (b"child-pid", b"exit-code"))


class Monitor:
    """One run of one program."""

    def __init__(self, spec: MonitorSpec) -> None:
        self._spec = spec
        self._user = _sandbox_user()
        self._over = threading.Event()

    def run(self) -> SandboxRun:
        """Run the program to its end or its deadline. Raises OSError or RuntimeError when it cannot be started."""
        spec = self._spec
        with open(spec.log, "ab") as sink:
            target = os.open(spec.artifacts, os.O_RDONLY | os.O_DIRECTORY) if spec.artifacts else -1
            file_system = _private_file_system(self._user)
            kernel.die_with_parent(spec.parent, signal.SIGKILL)
            file_system.open([Path(path) for path in (*spec.readable, *spec.copies)])
            file_system.cover()
            argv, artifacts = bubblewrap(spec, file_system, self._user)
            log, report = CappedLog(sink, spec.limits.log), bytearray()
            code, timed_out = self._supervise(argv, log, report)
            log.close()
        exported = self._export(artifacts, target)
        text = report.decode("utf-8", "replace")
        return SandboxRun(code, timed_out, text, log.dropped, tuple(exported.lines) if exported else ())

    def _supervise(self, argv: list[str], log: CappedLog, report: bytearray) -> tuple[int, bool]:
        out, out_inside = os.pipe()
        reports, reports_inside = socket.socketpair()
        status, status_inside = os.pipe()
        fds = (reports_inside.fileno(), status_inside)
        numbers = {REPORT: str(fds[0]), STATUS: str(fds[1])}
        argv = [numbers.get(argument, argument) for argument in argv]
        sandbox = self._start(argv, out_inside, fds)
        os.close(out_inside)
        reports_inside.close()
        os.close(status_inside)
        readers = [
            _reader(lambda: os.read(out, 1 << 16), log.write),
            _reader(lambda: reports.recv(1 << 16), _bounded(report, self._spec.limits.report)),
        ]
        # bubblewrap writes this, in pieces, before it starts the program.
        events = bytearray()
        first = _read_until(status, _CHILD, events)
        inside = os.pidfd_open(int(first.group(1))) if first else -1
        timed_out = not _ended(sandbox.pidfd, self._spec.timeout)
        if timed_out:
            sandbox.kill()
        sandbox.wait()
        if inside >= 0:
            # Its process 1 is gone only when every other one in there is: now nothing changes the artifacts.
            _ended(inside, None)
        for reader in readers:
            reader.join()
        self._over.set()
        if timed_out:
            return 128 + signal.SIGKILL, True
        last = _read_until(status, _EXIT_CODE, events)
        if last is None:
            raise RuntimeError(f"bubblewrap did not start the program; {self._spec.log} has its error")
        return int(last.group(1)), False

    def _start(self, argv: list[str], output: int, fds: tuple[int, ...]) -> Started:
        """Start bubblewrap from a thread that has left this host's network; it stays until the sandbox has ended.

        The kernel counts the thread as the parent whose death ends the sandbox.
        """
        outcomes: list[Started | BaseException] = []
        ready = threading.Event()

        def inside() -> None:
            try:
                kernel.unshare(kernel.CLONE_NEWNET)
                kernel.loopback_up()
                listeners.extend(
                    socket.create_server(("127.0.0.1", forward.inside), backlog=64) for forward in self._spec.forwards
                )
                outcomes.append(
                    start(argv, output=output, pass_fds=fds, user=self._user if os.geteuid() == 0 else None)
                )
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
                outcomes.append(error)
            ready.set()
            self._over.wait()

        listeners: list[socket.socket] = []
        threading.Thread(target=inside, daemon=True).start()
        ready.wait()
        if isinstance(outcomes[0], BaseException):
            raise outcomes[0]
        for listener, forward in zip(listeners, self._spec.forwards, strict=True):
            GuestRelay(listener, forward.port, forward.host).start()
        return outcomes[0]

    def _export(self, artifacts: Path | None, target: int) -> Export | None:
        if artifacts is None:
            return None
        source = os.open(artifacts, os.O_RDONLY | os.O_DIRECTORY)
        return export(source, target, self._spec.limits.artifacts, self._spec.limits.artifact_files)


def _private_file_system(user: int) -> SandboxFileSystem:
    """Leave this host's mounts: what is mounted from here on is this process's alone, and ends with it."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        kernel.unshare(kernel.CLONE_NEWNS)
    else:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    kernel.mount("", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)
    return SandboxFileSystem(user)


def _sandbox_user() -> int:
    """The user inside: a different one for each sandbox of root, and this process's own for an ordinary user."""
    if os.geteuid() != 0:
        return os.geteuid()
    taken_ids = {entry.pw_uid for entry in pwd.getpwall()}
    size = _LAST_USER - _FIRST_USER + 1
    tried = (_FIRST_USER + (os.getpid() + step) % size for step in range(size))
    return next(user for user in tried if user not in taken_ids)


def _reader(read: Callable[[], bytes], put: Callable[[bytes], None]) -> threading.Thread:
    def follow() -> None:
        while data := read():
            put(data)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


def _bounded(into: bytearray, limit: int) -> Callable[[bytes], None]:
    def put(data: bytes) -> None:
        into.extend(data[: max(0, limit - len(into))])

    return put


def _read_until(descriptor: int, pattern: re.Pattern[bytes], output: bytearray) -> re.Match[bytes] | None:
    while not (match := pattern.search(output)) and (more := os.read(descriptor, 4096)):
        output += more
    return match


def _ended(pidfd: int, timeout: float | None) -> bool:
    watch = select.poll()
    watch.register(pidfd, select.POLLIN)
    return bool(watch.poll(None if timeout is None else int(timeout * 1000)))


def main(spec_file: Path) -> int:
    """Run the sandbox that ``spec_file`` describes; the answer, a SandboxRun as JSON, goes to standard output."""
    spec = MonitorSpec.from_json(spec_file.read_text())
    Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    try:
        sandbox_run = Monitor(spec).run()
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return CANNOT
    print(json.dumps(dataclasses.asdict(sandbox_run)))
    return 0


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(status)  # threads that carry nothing any more are not waited for
