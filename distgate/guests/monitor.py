"""Guests that can outlive the work that started them: each lives in a process of its own, with a deadline.

A monitor boots one guest and ends it when its owner says so or dies, until it has an order to keep the guest; then
it ends the guest at the deadline, on SIGTERM, or when the guest powers off. Its watchdog ends the guest of a monitor
that was killed.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distgate.errors import ConfigurationError, DistgateError, Failure, InfrastructureError, TimedOut
from distgate.files import remove_tree, tail_of
from distgate.guests.accelerator import Accelerator
from distgate.guests.base import Guest, GuestStopped
from distgate.guests.host import LibvirtGuest, LibvirtGuests
from distgate.guests.registry import GuestRecord, GuestRegistry, HeldGuest, RegisteredGuests
from distgate.guests.watchdog import start_time
from distgate.process import spawn
from distgate.records import read_record, write_record
from distgate.waiting import wait_for

log = logging.getLogger(__name__)

#: Seconds between a monitor's looks at its deadline, its guest, its owner and its control directory.
LOOK = 0.5
#: Seconds that a monitor may take to end its guest before it is killed, and its watchdog ends the guest.
END_SECONDS = 30.0
#: Seconds that a monitor may need beside the boot itself, at most: the host's accelerators are probed, too.
_START_SECONDS = 120.0
#: Emulation stretches the boot's deadline; the monitor keeps that one itself, this is only for one that hangs.
_STRETCH = 30.0
#: Files of a monitor's directory: what it is to do, its guest, what it failed with instead, and that it is kept.
_SPEC, _GUEST, _FAILURE, _ORDER = "spec.json", "guest.json", "failure.json", "keep.json"
_LOG = "monitor.log"


@dataclass(frozen=True)
class MonitorSpec:
    """The guest to boot, and the process ``owner`` with which it ends unless it is kept."""

    state: Path
    image: Path
    key: Path
    workdir: Path
    timeout: float
    owner: int
    owner_started: str
    memory: int = 768
    cpus: int = 1
    isolated: bool = True
    accelerator: Accelerator | None = None


@dataclass(frozen=True)
class KeepOrder:
    """That the guest is to be kept for ``seconds``, counted from now or from the end of its owner."""

    seconds: float
    after_owner: bool
    why: str


class HeldGuests:
    """A GuestHost whose guests live in monitors: they end when left, like all others, unless ``keep`` was called.

    ``state`` is the guests' state directory, ``seconds`` for how long a kept guest stays: from the moment when it is
    kept, or, with ``after_owner``, from the end of this process: what else a run has to do takes nothing of it.
    """

    def __init__(
        self,
        state: Path,
        seconds: float,
        *,
        memory: int = 768,
        cpus: int = 1,
        isolated: bool = True,
        after_owner: bool = False,
        accelerated_by: Accelerator | None = None,
    ) -> None:
        self._state = state.resolve()
        self._seconds = seconds
        self._after_owner = after_owner
        self._memory, self._cpus, self._isolated = memory, cpus, isolated
        self._accelerator = accelerated_by
        self._controls: dict[str, Path] = {}
        self._kept: set[str] = set()

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        """See distgate.guests.base.GuestHost; raises what LibvirtGuests raises."""
        workdir.mkdir(parents=True, exist_ok=True)
        control = _new_control(self._state)
        write_record(control / _SPEC, self._specify(image, key, workdir, timeout))
        argv = [sys.executable, "-m", "distgate.guests.monitor", str(control)]
        monitor = spawn(argv, log_to=workdir / _LOG)
        name = ""
        try:
            guest = _await_guest(monitor, control, workdir, key, timeout)
            name = guest.name
            self._controls[name] = control
            yield guest
        finally:
            if name not in self._kept:
                _end(monitor)
                remove_tree(control, ignore_errors=True)

    def keep(self, guest: Guest, why: str) -> HeldGuest:
        """Leave the guest up, beyond the end of this process; how to get in.

        To be called while the guest runs. Raises InfrastructureError when its monitor does not answer.
        """
        until = time.time() + self._seconds
        write_record(self._controls[guest.name] / _ORDER, KeepOrder(self._seconds, self._after_owner, why))
        registry = GuestRegistry(self._state)

        def kept() -> GuestRecord | None:
            record = registry.find(guest.name)
            return record if record.held else None

        record = wait_for(f"guest {guest.name} to be kept", kept, END_SECONDS)
        self._kept.add(guest.name)
        return HeldGuest(name=guest.name, host=platform.node(), ssh=record.ssh_line, until=until, why=why)

    def _specify(self, image: Path, key: Path, workdir: Path, timeout: float) -> MonitorSpec:
        return MonitorSpec(
            state=self._state,
            image=image.resolve(),
            key=key.resolve(),
            workdir=workdir.resolve(),
            timeout=timeout,
            owner=os.getpid(),
            owner_started=start_time(os.getpid()),
            memory=self._memory,
            cpus=self._cpus,
            isolated=self._isolated,
            accelerator=self._accelerator,
        )


def end_held(state: Path, record: GuestRecord) -> None:
    """End a guest that is kept, and return when it is gone; ConfigurationError for one that a run works with."""
    if not record.held:
        raise ConfigurationError(
            f"a run works with guest {record.name}", hint="cancel the run; its guest ends with it"
        )
    _signal(record, signal.SIGTERM)
    try:
        wait_for(f"the end of guest {record.name}", lambda: not record.alive, END_SECONDS)
    except TimedOut:
        _signal(record, signal.SIGKILL)
        wait_for(f"the end of guest {record.name}", lambda: not start_time(record.qemu_pid), END_SECONDS)
    GuestRegistry(state).leave(record.name)


def _signal(record: GuestRecord, number: signal.Signals) -> None:
    # The handle holds on to the process that we looked at, so a reused ID is never hit.
    with suppress(OSError):
        handle = os.pidfd_open(record.pid)
        try:
            if record.alive:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def _new_control(state: Path) -> Path:
    directory = state / "monitors"
    directory.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="monitor-", dir=directory))


def _await_guest(
    monitor: subprocess.Popen[bytes], control: Path, workdir: Path, key: Path, timeout: float
) -> LibvirtGuest:
    def answered() -> LibvirtGuest | None:
        ended = monitor.poll() is not None  # asked first: it may answer and end between the two
        if (control / _FAILURE).exists():
            raise read_record(control / _FAILURE, Failure).error(GuestStopped)
        if (control / _GUEST).exists():
            return read_record(control / _GUEST, LibvirtGuest)
        if ended:
            raise InfrastructureError(
                f"the monitor of a guest ended with status {monitor.returncode}",
                hint=f"see {_LOG}",
                evidence=tail_of(workdir / _LOG),
            )
        return None

    limit = _START_SECONDS + timeout * _STRETCH
    # The same guest as in its monitor: the clock that its times were read from is this host's, not a process's.
    guest = wait_for("a guest in a monitor", answered, limit, evidence=lambda: tail_of(workdir / _LOG))
    return replace(guest, key=key)


def _end(monitor: subprocess.Popen[bytes]) -> None:
    monitor.terminate()
    try:
        monitor.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        monitor.kill()
        monitor.wait()


# -- the monitor's own side ---------------------------------------------------------------------------------------


def monitor_guest(control: Path) -> None:
    """Run a monitor's whole life; ``control`` holds its specification and its answer, and is removed at the end."""
    spec = read_record(control / _SPEC, MonitorSpec)
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    is_kept = threading.Event()
    threading.Thread(target=_follow_owner, args=(spec, is_kept), name="owner", daemon=True).start()
    failed = False
    try:
        with _host(spec).boot(spec.image, spec.key, spec.workdir, spec.timeout) as guest:
            record = GuestRegistry(spec.state).amend(guest.name, control=control)
            write_record(control / _GUEST, guest)
            _watch(spec, record, control, is_kept)
    except DistgateError as error:
        failed = True  # the owner reads why, and removes the directory
        write_record(control / _FAILURE, Failure.of(error))
        raise
    finally:
        if not failed:
            remove_tree(control, ignore_errors=True)


def _leave(*_: object) -> None:
    # Raised wherever the main thread is, so that the guest ends as it does in any worker; once is enough.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _follow_owner(spec: MonitorSpec, is_kept: threading.Event) -> None:
    """End this process with the owner, unless it has an order to keep the guest."""
    while not is_kept.wait(LOOK):
        if start_time(spec.owner) != spec.owner_started:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _host(spec: MonitorSpec) -> RegisteredGuests:
    options: dict[str, Any] = {"memory": spec.memory, "cpus": spec.cpus, "isolated": spec.isolated}
    return RegisteredGuests(LibvirtGuests(spec.state, **options, accelerated_by=spec.accelerator), spec.state)


def _watch(spec: MonitorSpec, record: GuestRecord, control: Path, is_kept: threading.Event) -> None:
    """Return when the guest shall end, or has."""
    while not (control / _ORDER).exists():
        if not start_time(record.qemu_pid):
            return
        time.sleep(LOOK)
    is_kept.set()
    order = read_record(control / _ORDER, KeepOrder)
    record = _promise(spec, record, order)
    while order.after_owner and start_time(spec.owner) == spec.owner_started and start_time(record.qemu_pid):
        time.sleep(LOOK)
    record = _promise(spec, record, order)
    while time.time() < (record.until or 0) and start_time(record.qemu_pid):
        time.sleep(LOOK)
    log.info("guest %s ends: %s", record.name, "its time is over" if start_time(record.qemu_pid) else "it stopped")


def _promise(spec: MonitorSpec, record: GuestRecord, order: KeepOrder) -> GuestRecord:
    """Set the deadline, counted from now, where people see it."""
    until = time.time() + order.seconds
    log.info("guest %s is kept until %s: %s", record.name, time.ctime(until), record.ssh_line)
    return GuestRegistry(spec.state).amend(record.name, until=until, why=order.why)


def _main(control: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        monitor_guest(control)
    except DistgateError as error:
        sys.exit(f"{error}\n{error.evidence}")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
