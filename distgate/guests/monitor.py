"""Guests that can outlive the work that started them: each lives in a process of its own, with a deadline.

A holder boots one guest and ends it when whoever asked for it says so or dies, until it is told to keep the guest;
from then on it ends the guest at the deadline, on SIGTERM, or when the guest powers off. Its watchdog ends the guest
of a holder that was killed.
"""

from __future__ import annotations

import json
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distgate import errors
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.files import remove_tree, tail_of
from distgate.guests.accelerator import Accelerator
from distgate.guests.base import Guest, GuestStopped
from distgate.guests.boot import BootMilestone
from distgate.guests.host import LibvirtGuest, LibvirtGuests
from distgate.guests.registry import GuestRecord, GuestRegistry, HeldGuest, RegisteredGuests
from distgate.guests.watchdog import start_time
from distgate.process import spawn
from distgate.records import write_record
from distgate.waiting import wait_for

log = logging.getLogger(__name__)

#: Seconds between a holder's looks at its deadline, its guest and its orders.
LOOK = 0.5
#: Seconds that a holder may take to end its guest before it is killed, and its watchdog ends the guest.
END_SECONDS = 30.0
#: Seconds that a holder may need beside the boot itself, at most: the host's accelerators are probed, too.
_START_SECONDS = 120.0
#: Emulation stretches the boot's deadline; the holder keeps that one itself, this is only for one that hangs.
_STRETCH = 30.0
_KINDS = {kind.__name__: kind for kind in (GuestStopped, *vars(errors).values()) if isinstance(kind, type)}


@dataclass(frozen=True)
class HolderSpec:
    """What a holder is told: the guest to boot, and the process ``owner`` with which it ends unless it is kept."""

    state: str
    image: str
    key: str
    workdir: str
    timeout: float
    owner: int
    owner_started: str
    memory: int = 768
    cpus: int = 1
    isolated: bool = True
    accelerator: dict[str, Any] | None = None


class HeldGuests:
    """A GuestHost whose guests live in holders: they end when left, like all others, unless ``keep`` was called.

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
        self._accelerator = asdict(accelerated_by) if accelerated_by else None
        self._controls: dict[str, Path] = {}
        self._kept: set[str] = set()

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        """See distgate.guests.base.GuestHost; raises what LibvirtGuests raises."""
        workdir.mkdir(parents=True, exist_ok=True)
        control = _new_control(self._state)
        write_record(control / "spec.json", asdict(self._specify(image, key, workdir, timeout)))
        words = [sys.executable, "-m", "distgate.guests.monitor", str(control)]
        holder = spawn(words, log_to=workdir / "holder.log")
        name = ""
        try:
            guest = _await_guest(holder, control, workdir, key, timeout)
            name = guest.name
            self._controls[name] = control
            yield guest
        finally:
            if name not in self._kept:
                _end(holder)
                remove_tree(control, ignore_errors=True)

    def keep(self, guest: Guest, why: str) -> HeldGuest:
        """Leave the guest up, beyond the end of this process; how to get in.

        To be called while the guest runs. Raises InfrastructureError when its holder does not answer.
        """
        until = time.time() + self._seconds
        order = {"seconds": self._seconds, "after_owner": self._after_owner, "why": why}
        write_record(self._controls[guest.name] / "keep.json", order)
        registry = GuestRegistry(self._state)

        def noted() -> GuestRecord | None:
            record = registry.find(guest.name)
            return record if record.held else None

        record = wait_for(f"guest {guest.name} to be kept", noted, END_SECONDS)
        self._kept.add(guest.name)
        return HeldGuest(name=guest.name, host=platform.node(), ssh=record.ssh_line, until=until, why=why)

    def _specify(self, image: Path, key: Path, workdir: Path, timeout: float) -> HolderSpec:
        return HolderSpec(
            state=str(self._state),
            image=str(image.resolve()),
            key=str(key.resolve()),
            workdir=str(workdir.resolve()),
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
    except errors.TimedOut:
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
    place = state / "holders"
    place.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="holder-", dir=place))


def _await_guest(
    holder: subprocess.Popen[bytes], control: Path, workdir: Path, key: Path, timeout: float
) -> LibvirtGuest:
    said_at = control / "answer.json"

    def answered() -> dict[str, Any] | None:
        ended = holder.poll() is not None  # asked first: it may answer and end between the two
        if said_at.exists():
            return dict(json.loads(said_at.read_text()))
        if ended:
            raise InfrastructureError(
                f"the holder of a guest ended with status {holder.returncode}",
                hint="see holder.log",
                evidence=tail_of(workdir / "holder.log"),
            )
        return None

    limit = _START_SECONDS + timeout * _STRETCH
    answer = wait_for("a guest in a holder", answered, limit, evidence=lambda: tail_of(workdir / "holder.log"))
    if "error" in answer:
        kind = _KINDS.get(answer["error"], InfrastructureError)
        raise kind(answer["message"], hint=answer["hint"], evidence=answer["evidence"])
    reached = tuple(BootMilestone(**one) for one in answer["reached"])
    # The same guest as in its holder: the clock that its times were read from is this host's, not a process's.
    return LibvirtGuest(**answer | {"key": key, "console": Path(answer["console"]), "reached": reached})


def _end(holder: subprocess.Popen[bytes]) -> None:
    holder.terminate()
    try:
        holder.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.wait()


# -- the holder's own side ----------------------------------------------------------------------------------------


def hold(control: Path) -> None:
    """The life of a holder; ``control`` holds its orders and its answers, and is removed at the end."""
    spec = HolderSpec(**json.loads((control / "spec.json").read_text()))
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    kept = threading.Event()
    threading.Thread(target=_follow_owner, args=(spec, kept), name="owner", daemon=True).start()
    asked_in_vain = False
    try:
        with _host(spec).boot(Path(spec.image), Path(spec.key), Path(spec.workdir), spec.timeout) as guest:
            record = GuestRegistry(Path(spec.state)).amend(guest.name, control=control)
            write_record(control / "answer.json", _answer(guest))
            _watch(spec, record, control, kept)
    except DistgateError as error:
        asked_in_vain = True  # whoever asked reads the answer, and removes it
        words = {"message": error.message, "hint": error.hint, "evidence": error.evidence}
        write_record(control / "answer.json", {"error": type(error).__name__, **words})
        raise
    finally:
        if not asked_in_vain:
            remove_tree(control, ignore_errors=True)


def _answer(guest: Guest) -> dict[str, Any]:
    if not isinstance(guest, LibvirtGuest):
        raise InfrastructureError(f"guest {guest.name} is none of libvirt's")
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(guest).items()}


def _leave(*_: object) -> None:
    # Raised wherever the main thread is, so that the guest ends as it does in any worker; once is enough.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


def _follow_owner(spec: HolderSpec, kept: threading.Event) -> None:
    """End this process with the one that asked for the guest, unless it is told to keep it."""
    while not kept.wait(LOOK):
        if start_time(spec.owner) != spec.owner_started:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _host(spec: HolderSpec) -> RegisteredGuests:
    given = Accelerator(**spec.accelerator) if spec.accelerator else None
    options: dict[str, Any] = {"memory": spec.memory, "cpus": spec.cpus, "isolated": spec.isolated}
    return RegisteredGuests(LibvirtGuests(Path(spec.state), **options, accelerated_by=given), Path(spec.state))


def _watch(spec: HolderSpec, record: GuestRecord, control: Path, kept: threading.Event) -> None:
    """Return when the guest shall end, or has."""
    order = control / "keep.json"
    while not order.exists():
        if not start_time(record.qemu_pid):
            return
        time.sleep(LOOK)
    kept.set()
    wish = json.loads(order.read_text())
    record = _promise(spec, record, wish)
    while wish["after_owner"] and start_time(spec.owner) == spec.owner_started and start_time(record.qemu_pid):
        time.sleep(LOOK)
    record = _promise(spec, record, wish)
    while time.time() < (record.until or 0) and start_time(record.qemu_pid):
        time.sleep(LOOK)
    log.info("guest %s ends: %s", record.name, "its time is over" if start_time(record.qemu_pid) else "it stopped")


def _promise(spec: HolderSpec, record: GuestRecord, wish: dict[str, Any]) -> GuestRecord:
    """Set the deadline, counted from now, where people see it."""
    until = time.time() + float(wish["seconds"])
    log.info("guest %s is kept until %s: %s", record.name, time.ctime(until), record.ssh_line)
    return GuestRegistry(Path(spec.state)).amend(record.name, until=until, why=wish["why"])


def _main(control: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        hold(control)
    except DistgateError as error:
        sys.exit(f"{error}\n{error.evidence}")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
