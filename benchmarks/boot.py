"""Power-on to a command over ssh: distgate's guests beside bare qemu with the same image and the same flags."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bare_guest import Patience, bare_guest, command_line_of
from benchmarks.cost import cpu_seconds_of
from distgate.guests import watchdog
from distgate.guests.accelerator import accelerator
from distgate.guests.boot import BANNER, CONSOLE, EMULATOR, NETWORK
from distgate.guests.host import LibvirtGuests
from distgate.guests.libvirt_connection import embedded_libvirt
from distgate.images.base import BaseImage
from distgate.process import run
from distgate.settings import settings
from lab.images.base_image import ensure_base

#: Alternating rounds; the loop of ssh attempts, which holds up the guest that it waits for, is in the first few only.
ROUNDS, LOOP_ROUNDS = 5, 3
BOOT_SECONDS = 120.0
REPORT_SECONDS = 60.0


@dataclass(frozen=True)
class Boot:
    """One boot in seconds: ``to_ssh`` from the call to a command over ssh, the overlay's making included, and the
    emulator's own CPU up to there. Of distgate also when each condition came true after power-on."""

    to_ssh: float
    cpu: float
    to_emulator: float = 0.0
    to_console: float = 0.0
    to_network: float = 0.0
    to_banner: float = 0.0


def measure(progress: Callable[[str], None]) -> dict[str, Any]:
    """ROUNDS of three boots, in turn: by distgate, by bare qemu with distgate's way to wait for ssh, and by bare qemu
    with a loop of ssh attempts, as a shell script would have it."""
    base = ensure_base(settings().cache, progress)
    progress(f"guests run under {accelerator().name}: {accelerator().reason}")
    rounds: dict[str, list[Boot]] = {"distgate": [], "bare": [], "bare_ssh_loop": []}
    with tempfile.TemporaryDirectory(prefix="distgate-bench-") as name:
        scratch = Path(name)
        fresh = _fresh_process(base, scratch)
        progress(f"a new process, from its start to ssh: {fresh:.1f} s")
        for number in range(ROUNDS):
            directory = scratch / f"round-{number}"
            rounds["distgate"].append(_by_distgate(base, scratch / "state", directory))
            example = command_line_of(directory / "qemu.log")
            rounds["bare"].append(_by_qemu(example, base, directory / "bare", "quiet"))
            if number < LOOP_ROUNDS:
                rounds["bare_ssh_loop"].append(_by_qemu(example, base, directory / "loop", "ssh loop"))
            progress(", ".join(f"{way}: {boots[-1].to_ssh:.1f} s" for way, boots in rounds.items()))
        report = _report(base, scratch, progress)
    return _summary(rounds, fresh, report)


def _by_distgate(base: BaseImage, state: Path, directory: Path) -> Boot:
    began = time.monotonic()
    with LibvirtGuests(state).boot(base.path, base.ssh_key, directory, BOOT_SECONDS) as guest:
        took = time.monotonic() - began
        cpu = sum(cpu_seconds_of(pid) for pid in watchdog.guests_of(embedded_libvirt(state).root))
        seen = {milestone.condition: milestone.seconds for milestone in guest.reached}
    times = [seen.get(condition, 0.0) for condition in (EMULATOR, CONSOLE, NETWORK, BANNER)]
    return Boot(round(took, 3), round(cpu, 2), *times)


def _by_qemu(example: list[str], base: BaseImage, directory: Path, patience: Patience) -> Boot:
    began = time.monotonic()
    with bare_guest(example, base, directory, patience, BOOT_SECONDS * accelerator().scale) as pid:
        return Boot(round(time.monotonic() - began, 3), round(cpu_seconds_of(pid), 2))


_FRESH = """
import sys
from pathlib import Path
from distgate.guests.host import LibvirtGuests
state, image, key = (Path(word) for word in sys.argv[1:4])
with LibvirtGuests(state).boot(image, key, state / "work", float(sys.argv[4])) as guest:
    (state / "seconds").write_text(str(guest.boot_seconds))
"""


def _fresh_process(base: BaseImage, scratch: Path) -> float:
    """Seconds from power-on in a process that has never started a guest, as each flow run is one."""
    state = scratch / "fresh"
    argv: list[str | Path] = [sys.executable, "-c", _FRESH, state, base.path, base.ssh_key, str(BOOT_SECONDS)]
    run(argv, timeout=BOOT_SECONDS * accelerator().scale)
    return round(float((state / "seconds").read_text()), 3)


def _report(base: BaseImage, scratch: Path, progress: Callable[[str], None]) -> dict[str, Any]:
    with LibvirtGuests(scratch / "state").boot(base.path, base.ssh_key, scratch / "reported", BOOT_SECONDS) as guest:
        began = time.monotonic()
        report = guest.boot_report(REPORT_SECONDS * accelerator().scale)
        took = time.monotonic() - began
    for line in report.lines():
        progress(line)
    return asdict(report) | {"report_took": round(took, 3)}


def _summary(rounds: dict[str, list[Boot]], fresh: float, report: dict[str, Any]) -> dict[str, Any]:
    def middle(way: str, value: Callable[[Boot], float]) -> float:
        return round(median(value(boot) for boot in rounds[way]), 3)

    def ratio(other: str, value: Callable[[Boot], float]) -> float:
        pairs = zip(rounds["distgate"], rounds[other], strict=True)
        return round(median(value(boot) / value(other_boot) for boot, other_boot in pairs), 3)

    return {
        "benchmark": "boot",
        "accelerator": accelerator().name,
        "distgate_over_bare": round(middle("distgate", _wall) / middle("bare", _wall), 3),
        "distgate_over_bare_cpu": round(middle("distgate", _cpu) / middle("bare", _cpu), 3),
        "distgate_over_bare_by_round": ratio("bare", _wall),
        "distgate_over_bare_ssh_loop": round(middle("distgate", _wall) / middle("bare_ssh_loop", _wall), 3),
        "seconds": {way: middle(way, _wall) for way in rounds},
        "cpu_seconds": {way: middle(way, _cpu) for way in rounds},
        "first_boot_of_a_process": fresh,
        "breakdown": {
            "to_emulator": middle("distgate", lambda boot: boot.to_emulator),
            "to_console": middle("distgate", lambda boot: boot.to_console),
            "to_network": middle("distgate", lambda boot: boot.to_network),
            "to_banner": middle("distgate", lambda boot: boot.to_banner),
        },
        "boot_report": report,
        "rounds": {way: [asdict(boot) for boot in boots] for way, boots in rounds.items()},
    }


def _wall(boot: Boot) -> float:
    return boot.to_ssh


def _cpu(boot: Boot) -> float:
    return boot.cpu
