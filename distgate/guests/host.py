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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distgate.bounded_logs import limited
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import tail_of
from distgate.guests import boot, reboot, ssh
from distgate.guests.accelerator import Accelerator, accelerator, find_qemu
from distgate.guests.base import CommandResult, GuestMachineFields, GuestStopped
from distgate.guests.boot import BANNER, COMMAND, CONSOLE, EMULATOR, NETWORK, BootMilestone, BootReport, panic
from distgate.guests.domain_xml import EMPTY_DUMP, FIRST_PACKETS, DomainSpec, Wire, domain_xml
from distgate.guests.libvirt_connection import EmbeddedLibvirt, embedded_libvirt
from distgate.guests.libvirt_module import libvirt, libvirt_qemu
from distgate.guests.registry import RegisteredGuests, emulator_of
from distgate.process import run
from distgate.waiting import Deadline, wait_for

log = logging.getLogger(__name__)

_FORWARDED = re.compile(r"^\s*TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+22\b", re.MULTILINE)


#: Seconds between two looks at a guest that is starting. A look costs the guest nothing until it has a network.
_LOOK = 0.05
#: Seconds (under KVM) of a guest's silence after which it is spoken to first, and between two attempts at that.
_SILENCE = 5.0
#: Seconds (under KVM) for a command to succeed once sshd has greeted, before it is tried anew.
_COMMAND_SECONDS = 30.0


@dataclass(frozen=True)
class LibvirtGuest:
    """A running guest: ssh as root on 127.0.0.1:``port`` with ``key``.

    ``boot_seconds`` is from power-on to a command over ssh, ``reached`` each condition on the way there;
    ``powered_on`` is the moment of its start by ``time.monotonic()``. ``scale`` stretches waits as its boot's was.
    """

    name: str
    port: int
    key: Path
    console: Path
    boot_seconds: float = 0.0
    reached: tuple[BootMilestone, ...] = ()
    powered_on: float = 0.0
    accelerator: str = ""
    scale: float = 1.0

    def run(self, command: str, timeout: float) -> CommandResult:
        """Run a shell command as root; see distgate.guests.ssh.run."""
        return ssh.run(ssh.SshAddress(self.port, self.key), command, timeout)

    def console_tail(self, size: int = 2000) -> str:
        """The last ``size`` bytes of the serial console."""
        return tail_of(self.console, size)

    def reboot(self, timeout: float) -> LibvirtGuest:
        """The same guest after a restart that it was asked for, once another boot has obeyed a command over ssh.

        Its port stays. ``timeout`` is in seconds under KVM, stretched under emulation. Raises TimedOut with the
        console's tail, GuestStopped when the guest powers off instead.
        """
        address = ssh.SshAddress(self.port, self.key)
        requested_at, reached = reboot.reboot(address, timeout, self.scale, self._check_emulator, self.console_tail)
        log.info("guest %s answers %.1f s after it was asked to restart", self.name, reached[-1].seconds)
        return replace(self, reached=reached, boot_seconds=reached[-1].seconds, powered_on=requested_at)

    def _check_emulator(self) -> None:
        if not emulator_of(self.name):
            raise GuestStopped(
                f"guest {self.name} ended when it was asked to restart",
                hint="it powered off or crashed; see console.log and qemu.log",
                evidence=self.console_tail(),
            )
        _check_kernel(self)

    def boot_report(self, timeout: float) -> BootReport:
        """How this guest booted, written to ``boot.txt`` and ``boot.json`` beside its console log as well.

        Waits until systemd has started everything, for ``timeout`` seconds at most; that and one ssh command (a
        second under emulation) are all it costs. Raises InfrastructureError when the guest cannot be asked.
        """
        report = boot.collect(self.run, self.reached, self.powered_on, self.accelerator, timeout)
        boot.write(report, self.console.parent)
        return report


def open_guests(fields: GuestMachineFields) -> RegisteredGuests:
    """What starts guests as a site's fields describe; they stand in the register of this host while they run."""
    guests = LibvirtGuests(fields.directory, memory=fields.memory, cpus=fields.cpus)
    return RegisteredGuests(guests, fields.directory)


class LibvirtGuests:
    """A GuestHost on libvirt's embedded driver; see distgate.guests.base.GuestHost.

    ``state`` holds records for ``distgate.guests.libvirt_connection.reap``, ``memory`` is in MiB, and ``isolated``
    guests have no network but the way in, and a ``wire`` where there are several (distgate.conformance.cluster).
    Several guests may run at once, also from threads.
    """

    def __init__(
        self,
        state: Path,
        *,
        memory: int = 768,
        cpus: int = 1,
        isolated: bool = True,
        accelerated_by: Accelerator | None = None,
        wire: Wire | None = None,
    ) -> None:
        self._state = state
        self._memory = memory
        self._cpus = cpus
        self._isolated = isolated
        self._accelerated_by = accelerated_by
        self._wire = wire

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float | Deadline) -> Iterator[LibvirtGuest]:
        """A guest on a throw-away overlay of ``image``, entered once a command over ssh worked, destroyed on exit.

        ``console.log`` and ``qemu.log`` stay in ``workdir``. ``timeout`` is in seconds under KVM, stretched under
        emulation, or a deadline that others may move. Raises TimedOut with the console's tail, GuestStopped when the
        guest powers off or crashes early.
        """
        accelerated_by = self._accelerated_by or accelerator()
        deadline = timeout if isinstance(timeout, Deadline) else Deadline(timeout * accelerated_by.scale)
        driver = embedded_libvirt(self._state)
        workdir.mkdir(parents=True, exist_ok=True)
        spec = self._specify(workdir.resolve(), accelerated_by)
        _make_overlay(image, spec.disk)
        spec.console.unlink(missing_ok=True)  # it is appended to
        powered_on = time.monotonic()
        try:
            domain = _start(driver, spec)
            guest = LibvirtGuest(spec.name, _forwarded_port(domain, driver, spec), key, spec.console)
            guest = replace(guest, powered_on=powered_on, accelerator=accelerated_by.name, scale=accelerated_by.scale)
            start = _Start(guest, domain, driver, spec, accelerated_by.scale)
            guest = replace(guest, reached=start.await_shell(deadline), boot_seconds=time.monotonic() - powered_on)
            log.info("guest %s answers after %.1f s under %s", spec.name, guest.boot_seconds, accelerated_by.name)
            with limited(spec.console):
                yield guest
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
            first_packets=workdir / f"{name}.pcap",
            wire=self._wire,
        )


def _make_overlay(image: Path, overlay: Path) -> None:
    if not image.is_file():
        raise ConfigurationError(f"there is no image {image}")
    # A chain below the image (overlay on base) is read from the image itself; its own format we must say.
    image_info = run(["qemu-img", "info", "--force-share", "--output=json", image], timeout=60, split_errors=True)
    backing = str(json.loads(image_info.output)["format"])
    run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-F", backing, "-b", image.resolve(), overlay],
        timeout=60,
        error=InfrastructureError,
    )


def _start(driver: EmbeddedLibvirt, spec: DomainSpec) -> Any:
    try:
        domain = driver.connection.createXML(domain_xml(spec), 0)
    except libvirt.libvirtError as error:
        if _size(spec.console):  # it ran, and was gone again before libvirt was done with starting it
            raise _ended_early(spec, driver) from error
        raise InfrastructureError(
            f"libvirt did not start the guest: {error}", evidence=tail_of(_emulator_log(driver, spec.name))
        ) from error
    driver.keep_capabilities()
    return domain


def _forwarded_port(domain: Any, driver: EmbeddedLibvirt, spec: DomainSpec) -> int:
    hmp = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    try:
        forwards = libvirt_qemu.qemuMonitorCommand(domain, "info usernet", hmp)
    except libvirt.libvirtError as error:
        raise _ended_early(spec, driver) from error
    match = _FORWARDED.search(forwards)
    if not match:
        raise InfrastructureError("qemu forwards no port to the guest's sshd", evidence=forwards)
    return int(match.group(1))


class _Start:
    """A guest between power-on and its first command: what it has shown so far, and when."""

    def __init__(
        self, guest: LibvirtGuest, domain: Any, driver: EmbeddedLibvirt, spec: DomainSpec, scale: float
    ) -> None:
        self._guest, self._domain, self._driver, self._spec, self._scale = guest, domain, driver, spec, scale
        self._address = ssh.SshAddress(guest.port, guest.key)
        self._reached: list[BootMilestone] = []
        self._silence = Deadline(_SILENCE * scale)
        self._last_output = ""

    def await_shell(self, deadline: Deadline) -> tuple[BootMilestone, ...]:
        """Each condition that came true, up to a command over ssh. Raises TimedOut, GuestStopped, or
        InfrastructureError when the guest refuses the key."""
        guest = self._guest
        self._note(EMULATOR, f"port {guest.port} leads to sshd")
        greeting = wait_for(
            BANNER, self._greets, deadline, evidence=guest.console_tail, hint="see console.log", interval=_LOOK
        )
        self._note(BANNER, greeting)
        wait_for(COMMAND, lambda: self._obeys(deadline), deadline, evidence=self._evidence, interval=_LOOK)
        self._note(COMMAND, "true")
        self._forget_packets()
        return tuple(self._reached)

    def _note(self, condition: str, evidence: str) -> None:
        if condition not in (milestone.condition for milestone in self._reached):
            seconds = round(time.monotonic() - self._guest.powered_on, 3)
            self._reached.append(BootMilestone(condition, seconds, evidence))

    def _greets(self) -> str | None:
        _check_alive(self._guest, self._domain, self._driver, self._spec)
        if _size(self._guest.console):
            self._note(CONSOLE, self._guest.console.name)
        # User-mode networking takes a connection before the guest has a network, and delivers it to sshd later even
        # if we have long hung up. Each of these costs an emulated guest a second in which it should boot: the first
        # packet tells when the guest can refuse a connection, and from then on an attempt is over at once.
        if self._has_spoken():
            return ssh.banner(self._address, _SILENCE * self._scale)
        if self._silence.passed:
            self._silence.reset(_SILENCE * self._scale)
            return ssh.banner(self._address)
        return None

    def _has_spoken(self) -> bool:
        if _size(self._spec.first_packets) > EMPTY_DUMP:
            self._note(NETWORK, "it was sent by the guest itself")
            return True
        return False

    def _obeys(self, deadline: Deadline) -> bool:
        _check_alive(self._guest, self._domain, self._driver, self._spec)
        patience = min(_COMMAND_SECONDS * self._scale, deadline.remaining())
        try:
            return self._guest.run("true", timeout=max(1.0, patience)).returncode == 0
        except InfrastructureError as error:
            self._last_output = error.evidence
            if "Permission denied" in error.evidence:
                raise
            return False

    def _evidence(self) -> str:
        return self._last_output + self._guest.console_tail()

    def _forget_packets(self) -> None:
        """A guest that runs shall not be slowed down by a copy of its traffic."""
        forget = json.dumps({"execute": "object-del", "arguments": {"id": FIRST_PACKETS}})
        with contextlib.suppress(libvirt.libvirtError):  # the guest just stopped: its next user finds out
            libvirt_qemu.qemuMonitorCommand(
                self._domain, forget, libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT
            )
        if self._spec.first_packets:
            self._spec.first_packets.unlink(missing_ok=True)


def _size(path: Path | None) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size if path else 0
    return 0


def _check_kernel(guest: LibvirtGuest) -> None:
    panic_text = panic(guest.console_tail())
    if panic_text:
        raise GuestStopped(
            f"the kernel of guest {guest.name} gave up: {panic_text}",
            hint="see console.log",
            evidence=guest.console_tail(),
        )


def _check_alive(guest: LibvirtGuest, domain: Any, driver: EmbeddedLibvirt, spec: DomainSpec) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        if domain.isActive():
            return _check_kernel(guest)
    raise _ended_early(spec, driver)


def _ended_early(spec: DomainSpec, driver: EmbeddedLibvirt) -> GuestStopped:
    return GuestStopped(
        f"guest {spec.name} ended before it answered ssh",
        hint="it powered off or crashed; see console.log and qemu.log",
        evidence=tail_of(spec.console, 2000) + tail_of(_emulator_log(driver, spec.name), 1000),
    )


def _end(driver: EmbeddedLibvirt, spec: DomainSpec, workdir: Path) -> None:
    # A guest that is gone already is what we want.
    with contextlib.suppress(libvirt.libvirtError):
        driver.connection.lookupByName(spec.name).destroy()
    for leftover in (spec.disk, spec.first_packets):
        if leftover:
            leftover.unlink(missing_ok=True)
    log_tail = _emulator_log(driver, spec.name)
    if log_tail.exists():
        (workdir / "qemu.log").write_bytes(log_tail.read_bytes())


def _emulator_log(driver: EmbeddedLibvirt, name: str) -> Path:
    return driver.root / "log" / "qemu" / f"{name}.log"
