"""qemu without libvirt: the command line that libvirt logged, less its control sockets, on an overlay of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from distgate.errors import InfrastructureError
from distgate.files import tail_of
from distgate.guests import ssh
from distgate.guests.domain_xml import EMPTY_DUMP
from distgate.images.base import BaseImage
from distgate.process import ProcessTimedOut, run, spawn
from distgate.waiting import Deadline, wait_for
from lab.servers.ports import free_ports

#: How to wait for ssh: ``quiet`` knocks once the guest has sent a packet, as distgate does; ``ssh loop`` tries a
#: command time and again, as a shell script does.
Patience = Literal["quiet", "ssh loop"]

_ALONE = {"-S", "-no-user-config", "-nodefaults", "-no-shutdown", "-no-acpi", "-no-reboot", "-no-hpet"}
#: Options that tie qemu to libvirt: its monitor, file descriptors and secrets passed on, a stop at the start.
_CONTROL = (
    ("-S", ""),
    ("-mon", ""),
    ("-add-fd", ""),
    ("-chardev", "charmonitor"),
    ("-object", '"secret"'),
)


def command_line_of(log: Path) -> list[str]:
    """The command line of the last qemu in libvirt's ``log``. Raises InfrastructureError without any."""
    starts = re.findall(r"^LC_ALL=C \\\n((?:.*\\\n)*.*)$", log.read_text(), re.MULTILINE)
    if not starts:
        raise InfrastructureError(f"libvirt logged no command line in {log}", evidence=tail_of(log))
    argv = shlex.split(starts[-1].replace("\\\n", ""))
    first = next(number for number, argument in enumerate(argv) if argument.startswith("/"))
    return argv[first:]


def _options(arguments: list[str]) -> list[tuple[str, str]]:
    options, rest = [], list(arguments)
    while rest:
        option = rest.pop(0)
        options.append((option, "" if option in _ALONE else rest.pop(0)))
    return options


@contextmanager
def bare_guest(
    example: list[str], base: BaseImage, directory: Path, patience: Patience, timeout: float
) -> Iterator[int]:
    """The process ID of a qemu started as ``example`` was, entered once a command over ssh worked, killed on exit."""
    directory.mkdir(parents=True)
    overlay, packets, console = directory / "overlay.qcow2", directory / "first.pcap", directory / "console.log"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base.path, overlay], timeout=60)
    port = free_ports(1)[0]
    argv = _argv(example, overlay, packets, console, port)
    qemu = spawn(argv, log_to=directory / "qemu.log")
    try:
        address = ssh.SshAddress(port, base.ssh_key)
        deadline = Deadline(timeout)
        if patience == "quiet":
            wait_for("a packet", lambda: _size(packets) > EMPTY_DUMP, deadline, interval=0.05)
            wait_for("the banner", lambda: ssh.banner(address, 25), deadline, interval=0.05)
        wait_for("a command over ssh", lambda: _obeys(address, patience), deadline, interval=0.05)
        yield qemu.pid
    finally:
        qemu.kill()
        qemu.wait()
        overlay.unlink()


def _argv(example: list[str], overlay: Path, packets: Path, console: Path, port: int) -> list[str]:
    argv = [example[0]]
    for option, value in _options(example[1:]):
        if any(option == name and part in value for name, part in _CONTROL):
            continue
        text = re.sub(r"[^\",]*/guest-[0-9a-f]{8}\.qcow2", str(overlay), value)
        text = re.sub(r"[^\",]*/guest-[0-9a-f]{8}\.pcap", str(packets), text)
        text = re.sub(r"path=/dev/fdset/\d+", f"path={console}", text).replace("127.0.0.1:0-", f"127.0.0.1:{port}-")
        argv += [option, text] if text or option not in _ALONE else [option]
    return argv


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_size
    return 0


def _obeys(address: ssh.SshAddress, patience: Patience) -> bool:
    # Five seconds are what scripts give an attempt; half of them would do nothing but add to the guest's burden.
    limit = 150.0 if patience == "quiet" else 5.0
    with contextlib.suppress(InfrastructureError, ProcessTimedOut):
        return ssh.run(address, "true", limit).returncode == 0
    return False
