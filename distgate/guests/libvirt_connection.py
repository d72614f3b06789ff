"""libvirt inside this process: no daemon, no system-wide state, and no guest left when the process is killed.

libvirt allows one embedded driver per process, so there is one connection, opened at first use. Its root directory is
private to the process, which lets any number of flow runs work side by side on one host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgate import files
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests import watchdog
from distgate.guests.libvirt_module import libvirt
from distgate.process import spawn
from distgate.records import write_record

log = logging.getLogger(__name__)

#: libvirt keeps a monitor socket below the root, and the path of a socket has at most 107 bytes.
_LONGEST_ROOT = 50

_QEMU_CONF = """\
# Written by distgate: no log daemon, no labels, no cgroups, no chown, for these need what a daemon would set up.
stdio_handler = "file"
user = "+{uid}"
group = "+{gid}"
security_driver = "none"
security_default_confined = 0
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
"""


@dataclass
class EmbeddedLibvirt:
    """The open driver: ``connection`` is libvirt's own object, ``root`` the directory with its sockets and logs."""

    connection: Any
    root: Path
    watchdog: subprocess.Popen[bytes]
    pid: int = field(default_factory=os.getpid)

    def keep_capabilities(self) -> None:
        """Keep for other processes what libvirt found out about the emulator, which takes it seconds.

        libvirt itself refuses it when emulator, libvirt, kernel, processor or access to KVM have changed.
        """
        for capabilities in _capabilities(self.root).glob("*.xml"):
            cached = _cached_capabilities() / capabilities.name
            with contextlib.suppress(OSError):
                if not cached.exists() or cached.stat().st_mtime < capabilities.stat().st_mtime:
                    files.write_cached(cached, capabilities.read_bytes())


_lock = threading.Lock()
_opened: EmbeddedLibvirt | None = None


def embedded_libvirt(state: Path) -> EmbeddedLibvirt:
    """This process's driver, opened at the first call; ``state`` gets a record of it that ``reap`` reads.

    Raises InfrastructureError when libvirt refuses, ConfigurationError after a fork, which libvirt does not survive.
    """
    global _opened
    with _lock:
        if _opened is None:
            _opened = _open(state)
        if _opened.pid != os.getpid():
            raise ConfigurationError(
                "libvirt was opened before this process was forked", hint="start worker processes by spawn, not fork"
            )
        _record_in(state, _opened.root)
        return _opened


def reap(state: Path, *, dry_run: bool = False) -> list[int]:
    """Kill the guests of processes that are gone and remove what they left; the process IDs of those guests.

    Each worker has a watchdog that does this at once: there is something to reap only where that was killed too.
    """
    killed: list[int] = []
    for record in sorted(_records(state).glob("*.json")):
        owner = json.loads(record.read_text())
        if watchdog.start_time(owner["pid"]) == owner["started"]:
            continue
        if dry_run:
            killed += watchdog.guests_of(Path(owner["root"]))
        else:
            killed += watchdog.kill_guests(Path(owner["root"]))
            record.unlink(missing_ok=True)
    return killed


def _open(state: Path) -> EmbeddedLibvirt:
    root = Path(tempfile.mkdtemp(prefix="distgate-", dir=_short_directory()))
    record = _record_in(state, root)
    started = watchdog.start_time(os.getpid())
    script = Path(watchdog.__file__)
    child = spawn(
        [sys.executable, "-I", "-S", script, root, str(os.getpid()), started, record],
        log_to=_records(state) / "watchdog.log",
    )
    _bring_capabilities(root)
    (root / "etc").mkdir()
    (root / "etc" / "qemu.conf").write_text(_QEMU_CONF.format(uid=os.getuid(), gid=os.getgid()))
    _start_event_loop()
    try:
        with _on_first_processor():
            connection = libvirt.open(f"qemu:///embed?root={root}")
    except libvirt.libvirtError as error:
        raise InfrastructureError(
            f"libvirt's embedded driver does not open: {error}",
            hint="it needs libvirt's qemu driver and, for root, its user (Debian: libvirt-qemu, Fedora: qemu)",
        ) from error
    log.debug("libvirt %s embedded in %s", connection.getLibVersion(), root)
    return EmbeddedLibvirt(connection, root, child)


@contextlib.contextmanager
def _on_first_processor() -> Iterator[None]:
    """Let libvirt look at always the same processor: some tell their own number in CPUID (leaf 0x1f), and libvirt
    takes that for another host, for which kept capabilities do not hold."""
    allowed = os.sched_getaffinity(0)
    before = set(os.listdir("/proc/self/task"))
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        for thread in set(os.listdir("/proc/self/task")) - before:  # libvirt's own have inherited it
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread), allowed)


def _bring_capabilities(root: Path) -> None:
    directory = _capabilities(root)
    directory.mkdir(parents=True)
    with contextlib.suppress(OSError):  # without them libvirt asks the emulator
        for cached in _cached_capabilities().glob("*.xml"):
            shutil.copy2(cached, directory / cached.name)


def _capabilities(root: Path) -> Path:
    return root / "cache" / "qemu" / "capabilities"


def _cached_capabilities() -> Path:
    return files.host_cache() / f"libvirt-capabilities-{os.geteuid()}"


def _start_event_loop() -> None:
    # Both must come before the first connection: it registers its monitor sockets with the loop.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised; no second copy on stderr
    libvirt.virEventRegisterDefaultImpl()

    def turn() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=turn, name="libvirt-events", daemon=True).start()


def _short_directory() -> str:
    choices = [os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()]
    short = [
        choice for choice in choices if choice and len(choice) < _LONGEST_ROOT - 20 and os.access(choice, os.W_OK)
    ]
    return short[0] if short else "/tmp"  # noqa: S108  (mkdtemp makes a private directory there)


def _records(state: Path) -> Path:
    return state / "guests"


def _record_in(state: Path, root: Path) -> Path:
    record = _records(state) / f"{root.name}.json"
    if not record.exists():
        record.parent.mkdir(parents=True, exist_ok=True)
        owner = {"pid": os.getpid(), "started": watchdog.start_time(os.getpid()), "root": str(root)}
        # Whole or absent: reap may look at any moment.
        write_record(record, owner)
    return record.resolve()
