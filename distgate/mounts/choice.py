"""The ways to mount an image for an offline transaction, and which of them this worker can use."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from distgate.errors import ConfigurationError
from distgate.mounts import guestfs, loop, rootless
from distgate.process import on_path

DriverName = Literal["loop", "rootless", "guestfs"]
#: The fastest first: this is the order of ``auto``.
DRIVERS: tuple[DriverName, ...] = get_args(DriverName)
DriverChoice = Literal["auto", "loop", "rootless", "guestfs"]

#: Of every driver: namespaces, dnf, rpm, and what confines them.
_SHARED = ("setpriv", "unshare", "mount", "bwrap", "dnf", "rpm", "qemu-img", "sync")


def supported_drivers(appliance_kernel: Path | None = None) -> list[tuple[DriverName, bool, str]]:
    """Each driver, whether it can be used here and now, and why not; nothing is mounted to find out."""
    refusals = ((name, _refusal(name, appliance_kernel)) for name in DRIVERS)
    return [(name, not refusal, refusal) for name, refusal in refusals]


def choose_driver(driver: DriverChoice = "auto", appliance_kernel: Path | None = None) -> DriverName:
    """``driver``, or for auto the fastest that can be used. Raises ConfigurationError that says why none can."""
    refusals = {}
    for name in DRIVERS if driver == "auto" else (driver,):
        refusals[name] = _refusal(name, appliance_kernel)
        if not refusals[name]:
            return name
    if driver == "auto":
        raise ConfigurationError(
            "this worker can mount no image",
            hint="; ".join(f"{name}: {reason}" for name, reason in refusals.items()),
        )
    raise ConfigurationError(
        f"DISTGATE_COMPOSE_DRIVER={driver} cannot be used here: {refusals[driver]}",
        hint="auto takes the fastest that can",
    )


def _refusal(name: DriverName, appliance_kernel: Path | None) -> str:
    needed = {"loop": loop.PROGRAMS, "rootless": rootless.PROGRAMS, "guestfs": guestfs.PROGRAMS}
    missing = [program for program in (*_SHARED, *needed[name]) if not on_path(program)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if name == "guestfs":
        return guestfs.refusal(appliance_kernel)
    return loop.refusal() if name == "loop" else rootless.refusal()
