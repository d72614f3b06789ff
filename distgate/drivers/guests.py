"""Throw-away guests through libvirt: an overlay, a domain, ssh on loopback, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgate.drivers import ssh
from distgate.drivers.accelerator import Accelerator, accelerator, find_qemu
from distgate.drivers.base import CommandResult
from distgate.drivers.domain_xml import DomainSpec, domain_xml
from distgate.drivers.embedded_libvirt import EmbeddedLibvirt, embedded_libvirt
from distgate.drivers.quiet_libvirt import libvirt, libvirt_qemu
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.process import run, tail_of
from distgate.waiting import Deadline, wait_for

log = logging.getLogger(__name__)

_FORWARDED = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\b", re.MULTILINE)


class GuestStopped(InfrastructureError):
    """A guest ended by itself before it could be used; ``evidence`` is what console and emulator said last."""


@dataclass(frozen=True)
class LibvirtGuest:
    """A running guest: ssh as root on 127.0.0.1:``port`` with ``key``; ``boot_seconds`` from power-on to a shell."""

    name: str
    port: int
    key: Path
    console: Path
    boot_seconds: float = 0.0

    def run(self, command: str, timeout: float) -> CommandResult:
        """Run a shell command as root; see distgate.drivers.ssh.run."""
        return ssh.run(ssh.SshAddress(self.port, self.key), command, timeout)

    def console_tail(self, size: int = 2000) -> str:
        """The last ``size`` bytes of the serial console."""
        return tail_of(self.console, size)


class LibvirtGuests:
    """A GuestHost on libvirt's embedded driver; see distgate.drivers.base.GuestHost.

    ``state`` holds records for ``distgate.drivers.embedded_libvirt.reap``, ``memory`` is in MiB, and ``isolated``
    guests have no network but the way in. Several guests may run at once, also from threads.
    """

    def __init__(
        self,
        state: Path,
        *,
        memory: int = 768,
        cpus: int = 1,
        isolated: bool = True,
        accelerated_by: Accelerator | None = None,
    ) -> None:
        self._state = state
        self._memory = memory
        self._cpus = cpus
        self._isolated = isolated
        self._accelerated_by = accelerated_by

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[LibvirtGuest]:
        """A guest on a throw-away overlay of ``image``, entered once a command over ssh worked, destroyed on exit.

        ``console.log`` and ``qemu.log`` stay in ``workdir``. ``timeout`` is in seconds under KVM, stretched under
        emulation. Raises TimedOut with the console's tail, GuestStopped when the guest powers off or crashes early.
        """
        accelerated_by = self._accelerated_by or accelerator()
        deadline = Deadline(timeout * accelerated_by.scale)
        driver = embedded_libvirt(self._state)
        workdir.mkdir(parents=True, exist_ok=True)
        spec = self._specify(workdir.resolve(), accelerated_by)
        _make_overlay(image, spec.disk)
        started = time.monotonic()
        try:
            domain = _start(driver, spec)
            guest = LibvirtGuest(spec.name, _forwarded_port(domain), key, spec.console)
            _await_shell(guest, domain, deadline, driver)
            boot_seconds = time.monotonic() - started
            log.info("guest %s answers after %.1f s under %s", spec.name, boot_seconds, accelerated_by.name)
            yield LibvirtGuest(guest.name, guest.port, guest.key, guest.console, boot_seconds)
        finally:
            _end(driver, spec, workdir)

    def _specify(self, workdir: Path, accelerated_by: Accelerator) -> DomainSpec:
        name = f"guest-{uuid.uuid4().hex[:8]}"
        return DomainSpec(
            name=name,
            disk=workdir / f"{name}.qcow2",
            console=workdir / "console.log",
            emulator=find_qemu(),
            domain_type=accelerated_by.domain_type,
            memory_mib=self._memory,
            vcpus=self._cpus,
            isolated=self._isolated,
        )


def _make_overlay(image: Path, overlay: Path) -> None:
    if not image.is_file():
        raise ConfigurationError(f"there is no image {image}")
    # A chain below the image (overlay on base) is read from the image itself; its own format we must say.
    asked = run(["qemu-img", "info", "--force-share", "--output=json", image], timeout=60, split_errors=True)
    backing = str(json.loads(asked.output)["format"])
    run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", backing, "-b", image.resolve(), overlay],
        timeout=60,
        error=InfrastructureError,
    )


def _start(driver: EmbeddedLibvirt, spec: DomainSpec) -> Any:
    try:
        return driver.connection.createXML(domain_xml(spec), 0)
    except libvirt.libvirtError as refused:
        raise InfrastructureError(
            f"libvirt did not start the guest: {refused}", evidence=tail_of(_emulator_log(driver, spec.name))
        ) from refused


def _forwarded_port(domain: Any) -> int:
    said = libvirt_qemu.qemuMonitorCommand(domain, "info usernet", libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
    found = _FORWARDED.search(said)
    if not found:
        raise InfrastructureError("qemu forwards no port to the guest's sshd", evidence=said)
    return int(found.group(1))


def _await_shell(guest: LibvirtGuest, domain: Any, deadline: Deadline, driver: EmbeddedLibvirt) -> None:
    address = ssh.SshAddress(guest.port, guest.key)
    last_words = ""

    def greets() -> str | None:
        _check_alive(guest, domain, driver)
        return ssh.banner(address)

    def obeys() -> bool:
        nonlocal last_words
        _check_alive(guest, domain, driver)
        try:
            return guest.run("true", timeout=max(1.0, deadline.remaining())).returncode == 0
        except InfrastructureError as failed:
            last_words = failed.evidence
            if "Permission denied" in failed.evidence:
                raise
            return False

    wait_for("the guest's ssh banner", greets, deadline, evidence=guest.console_tail, hint="see console.log")
    wait_for("a command over ssh", obeys, deadline, evidence=lambda: last_words + guest.console_tail())


def _check_alive(guest: LibvirtGuest, domain: Any, driver: EmbeddedLibvirt) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        if domain.isActive():
            return
    raise GuestStopped(
        f"guest {guest.name} ended before it answered ssh",
        hint="it powered off or crashed; see console.log and qemu.log",
        evidence=guest.console_tail() + tail_of(_emulator_log(driver, guest.name), 1000),
    )


def _end(driver: EmbeddedLibvirt, spec: DomainSpec, workdir: Path) -> None:
    # A guest that is gone already is what we want.
    with contextlib.suppress(libvirt.libvirtError):
        driver.connection.lookupByName(spec.name).destroy()
    spec.disk.unlink(missing_ok=True)
    said = _emulator_log(driver, spec.name)
    if said.exists():
        (workdir / "qemu.log").write_bytes(said.read_bytes())


def _emulator_log(driver: EmbeddedLibvirt, name: str) -> Path:
    return driver.root / "log" / "qemu" / f"{name}.log"
