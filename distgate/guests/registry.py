"""Which guests run on this host: a JSON file for each, so that people can find one and get in.

The register is for people and for ``distgate guests``. Nothing depends on it for cleaning up: guests end with the
process that holds them (distgate.guests.watchdog), and a record whose process is gone is dropped when read.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distgate.errors import ConfigurationError
from distgate.files import RUN_RECORD, remove_tree
from distgate.guests.base import Guest, GuestHost
from distgate.guests.watchdog import start_time
from distgate.records import read_record, write_record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GuestRecord:
    """A running guest. ``pid`` is the process that it ends with, ``started`` tells that process from later ones.

    ``run`` is the run that it belongs to, or empty. Times are seconds since the epoch; ``until`` is None while a run
    works with the guest. ``control`` is the directory of its monitor (distgate.guests.monitor), if it has one.
    """

    name: str
    pid: int
    started: str
    qemu_pid: int
    port: int
    key: Path
    console: Path
    image: Path
    workdir: Path
    run: str
    since: float
    until: float | None = None
    why: str = ""
    control: Path | None = None

    @property
    def alive(self) -> bool:
        """Whether the process that holds it is still there."""
        return start_time(self.pid) == self.started

    @property
    def held(self) -> bool:
        """Whether it is kept for people, and by nothing else."""
        return self.until is not None

    @property
    def ssh_line(self) -> str:
        """What to paste into a shell of this host to get in."""
        return shlex.join(ssh_words(self))


def ssh_words(record: GuestRecord) -> list[str]:
    """The argument list of an interactive ssh into the guest."""
    settings = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR")
    options = [argument for option in settings for argument in ("-o", option)]
    return ["ssh", "-F", "/dev/null", *options, "-i", str(record.key), "-p", str(record.port), "root@127.0.0.1"]


class GuestRegistry:
    """The records below the guests' state directory ``state``."""

    def __init__(self, state: Path) -> None:
        self.directory = state / "registry"

    def enter(self, record: GuestRecord) -> None:
        """Write a record, whole or not at all; one of the same name is replaced."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_record(self._path(record.name), record)

    def amend(self, name: str, **changes: Any) -> GuestRecord:
        """Change a record. Raises ConfigurationError when there is none of this name."""
        record = replace(self.find(name), **changes)
        self.enter(record)
        return record

    def leave(self, name: str) -> None:
        """Drop a record; one that is gone is no error."""
        self._path(name).unlink(missing_ok=True)

    def all(self) -> list[GuestRecord]:
        """The guests that run, oldest first. Those whose process has ended are dropped from the register."""
        records = self._records()
        for dead in (record for record in records if not record.alive):
            self.leave(dead.name)
            if dead.control:
                remove_tree(dead.control, ignore_errors=True)
        return sorted((record for record in records if record.alive), key=lambda record: record.since)

    def visible(self) -> list[GuestRecord]:
        """The guests whose processes can be seen from here. For those who only look: from a container, or another
        account, one that runs may look dead, and nothing is dropped."""
        return [record for record in self._records() if record.alive]

    def find(self, name: str) -> GuestRecord:
        """The one running guest whose name is ``name`` or begins or ends with it. Raises ConfigurationError."""
        matches = matching(self.all(), name)
        if len(matches) != 1:
            problem = "several guests are" if matches else "no running guest is"
            raise ConfigurationError(f"{problem} called {name!r}", hint="`distgate guests list` shows them")
        return matches[0]

    def _records(self) -> list[GuestRecord]:
        return [record for path in sorted(self.directory.glob("*.json")) if (record := _read(path))]

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def matching(records: Sequence[GuestRecord], name: str) -> list[GuestRecord]:
    """The records whose name is ``name``, or else all whose name begins or ends with it."""
    exact = [record for record in records if record.name == name]
    return exact or [
        record for record in records if name and (record.name.startswith(name) or record.name.endswith(name))
    ]


class RegisteredGuests:
    """A GuestHost whose guests stand in the register while they run; ``inner`` starts and ends them."""

    def __init__(self, inner: GuestHost, state: Path) -> None:
        self._inner = inner
        self._registry = GuestRegistry(state)

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        """See distgate.guests.base.GuestHost."""
        with self._inner.boot(image, key, workdir, timeout) as guest:
            try:
                self._registry.enter(record_of(guest, image, workdir))
            except OSError as error:
                # People cannot find the guest then; the run can go on without that.
                log.warning("guest %s is not in the register: %s", guest.name, error)
            try:
                yield guest
            finally:
                with suppress(OSError):
                    self._registry.leave(guest.name)


def record_of(guest: Guest, image: Path, workdir: Path) -> GuestRecord:
    """The record of a guest that this process holds."""
    return GuestRecord(
        name=guest.name,
        pid=os.getpid(),
        started=start_time(os.getpid()),
        qemu_pid=emulator_of(guest.name),
        port=guest.port,
        key=guest.key.resolve(),
        console=guest.console.resolve(),
        image=image.resolve(),
        workdir=workdir.resolve(),
        run=_run_of(workdir.resolve()),
        since=time.time(),
    )


def emulator_of(name: str) -> int:
    """The process ID of the emulator that runs the guest ``name``; 0 when there is none."""
    mark = f"guest={name},".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if b"qemu" in argv[0] and any(argument.startswith(mark) for argument in argv):
                    return int(entry.name)
    return 0


def _run_of(workdir: Path) -> str:
    """The run in whose directory a guest works."""
    return next((directory.name for directory in workdir.parents if (directory / RUN_RECORD).is_file()), "")


def _read(path: Path) -> GuestRecord | None:
    try:
        return read_record(path, GuestRecord)
    except FileNotFoundError:  # its guest has just ended
        return None
    except (OSError, ConfigurationError) as error:
        log.warning("%s is not read: %s", path, error)
        return None


@dataclass(frozen=True)
class HeldGuest:
    """A guest that was kept after a failure: how to get in, on which host, until when (seconds since the epoch)."""

    name: str
    host: str
    ssh: str
    until: float
    why: str = ""
