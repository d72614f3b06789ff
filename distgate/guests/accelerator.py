"""Which accelerator really runs a guest here: proved by booting a boot sector, never by looking at /dev/kvm.

A host can open /dev/kvm and even run a few instructions, and still be a thousand times too slow to boot (nested
virtualisation without hardware support). Only a guest that does some work within seconds proves that it
can run guests.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import platform
import shutil
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from distgate import files
from distgate.errors import ConfigurationError
from distgate.process import ProcessTimedOut, run

log = logging.getLogger(__name__)

Name = Literal["kvm", "tcg"]

#: Seconds a boot sector gets; a healthy accelerator needs a tenth of one.
LIMIT = 3.0
#: Emulating every instruction makes a boot about this much slower than KVM does; timeouts are stretched by it.
TCG_SCALE = 5.0
#: Seconds for which a refusal of KVM is believed: the host may have been too busy for a moment. Proof holds until
#: the host is booted anew.
_REFUSAL_HOLDS = 3600.0

_EXIT_CODE = 0x21
_PROVED = (_EXIT_CODE << 1) | 1  # what isa-debug-exit makes of it
#: What the boot sector counts down from: a tenth of a second for a processor, and minutes where each instruction is
#: emulated by an outer hypervisor, under which a guest never boots although its first instructions run in time.
_COUNT = 100_000_000
_BOOT_SECTOR = (
    b"\x66\xb9" + _COUNT.to_bytes(4, "little")  # mov ecx, _COUNT
    + b"\x66\x49\x75\xfc"  # dec ecx; jnz -4
    + bytes([0xB0, _EXIT_CODE, 0xE6, 0xF4, 0xF4, 0xEB, 0xFD])  # mov al, 0x21; out 0xf4, al; hlt; jmp -3
).ljust(510, b"\0") + b"\x55\xaa"  # fmt: skip


@dataclass(frozen=True)
class Accelerator:
    """``name`` is what libvirt and qemu call it, ``reason`` why it was chosen, ``scale`` stretches timeouts."""

    name: Name
    reason: str
    scale: float

    @property
    def domain_type(self) -> str:
        """The word for it in libvirt's domain XML."""
        return "kvm" if self.name == "kvm" else "qemu"


@dataclass(frozen=True)
class Probe:
    """Whether one accelerator ran the boot sector, how many seconds it took, and what was seen when it did not."""

    name: Name
    usable: bool
    seconds: float
    detail: str


def find_qemu() -> str:
    """The system emulator's absolute path. Raises ConfigurationError when there is none."""
    for program in ("qemu-system-x86_64", "/usr/libexec/qemu-kvm"):
        binary = shutil.which(program)
        if binary:
            return binary
    raise ConfigurationError(
        "no qemu-system-x86_64 on this host", hint="install qemu-system-x86 (Debian) or qemu-kvm (Fedora)"
    )


def probe(name: Name, limit: float = LIMIT) -> Probe:
    """Boot the boot sector under accelerator ``name``, for at most ``limit`` seconds."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distgate-probe-") as scratch:
        sector = Path(scratch) / "sector.img"
        sector.write_bytes(_BOOT_SECTOR)
        try:
            ended = run(_command(name, sector), timeout=limit, allowed=range(-64, 256))
        except ProcessTimedOut:
            return Probe(name, False, time.monotonic() - started, f"a boot sector did not end within {limit:g} s")
    usable = ended.returncode == _PROVED
    detail = "" if usable else (ended.output.strip().splitlines() or [f"qemu ended with {ended.returncode}"])[-1]
    return Probe(name, usable, time.monotonic() - started, detail)


def choose(limit: float = LIMIT) -> Accelerator:
    """Probe and choose: KVM where it is proved, emulation otherwise.

    Raises ConfigurationError when not even emulation runs the boot sector. ``remembered_choice`` does not ask twice.
    """
    refusal = "/dev/kvm cannot be opened for reading and writing"
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        kvm = probe("kvm", limit)
        if kvm.usable:
            return Accelerator("kvm", f"KVM ran a boot sector in {kvm.seconds:.1f} s", 1.0)
        refusal = f"KVM is not usable: {kvm.detail}"
    # Emulation is the last resort, so it may take long on a busy host.
    tcg = probe("tcg", limit * 10)
    if not tcg.usable:
        raise ConfigurationError("qemu cannot run any guest here", hint=refusal, evidence=tcg.detail)
    return Accelerator("tcg", refusal, TCG_SCALE)


def accelerator() -> Accelerator:
    """The accelerator of this host; probed once, and again after a reboot, another qemu, or a change of /dev/kvm."""
    with _lock:
        return _remembered()


def remembered_choice(memory: Path, limit: float = LIMIT) -> Accelerator:
    """What ``choose`` found when it was last asked under the same circumstances, by the file ``memory``.

    Asks again, and writes the answer there, when there is none that still holds: a refusal of KVM costs ``limit``
    seconds to find out, which each process would spend anew.
    """
    remembered = known_choice(memory, limit)
    if remembered:
        return remembered
    chosen = choose(limit)
    answer = {"circumstances": _circumstances(limit), "at": time.time(), "accelerator": asdict(chosen)}
    files.write_cached(memory, json.dumps(answer).encode())
    return chosen


def known_choice(memory: Path, limit: float = LIMIT) -> Accelerator | None:
    """The answer in the file ``memory``, None when there is none that holds here and now."""
    # Whatever is odd about the file is as good as no file.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        answer = json.loads(memory.read_text())
        accelerator = Accelerator(**answer["accelerator"])
        holds = accelerator.name == "kvm" or 0 <= time.time() - answer["at"] < _REFUSAL_HOLDS
        if answer["circumstances"] == _circumstances(limit) and holds and accelerator.name in ("kvm", "tcg"):
            return accelerator
    return None


_lock = threading.Lock()


@functools.cache
def _remembered() -> Accelerator:
    chosen = remembered_choice(files.host_cache() / "accelerator.json")
    log.info("guests run under %s: %s", chosen.name, chosen.reason)
    return chosen


def _circumstances(limit: float) -> list[str]:
    """What the answer depends on: this boot of this kernel, the emulator, what we may do with KVM, the question."""
    emulator = Path(find_qemu()).resolve()
    program = emulator.stat()
    device = "none"
    with contextlib.suppress(OSError):
        node = os.stat("/dev/kvm")
        device = (
            f"{node.st_rdev} {node.st_mode} {node.st_uid}:{node.st_gid} {os.access('/dev/kvm', os.R_OK | os.W_OK)}"
        )
    binary = f"{emulator} {program.st_size} {program.st_mtime_ns} {program.st_ctime_ns}"
    question = f"{limit:g} s for {_BOOT_SECTOR.rstrip(bytes(1)).hex()}"
    return [files.boot_id(), platform.release(), binary, device, f"{os.geteuid()}", question]


def _command(name: Name, sector: Path) -> list[str]:
    return [
        find_qemu(),
        *("-accel", name, "-machine", "pc", "-m", "16"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-boot", "c"),
        *("-drive", f"file={sector},format=raw,if=ide,snapshot=on"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x01"),
    ]
