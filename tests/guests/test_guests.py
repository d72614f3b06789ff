"""Guests start, answer or are explained, and are gone afterwards, however their worker ends.

Most of these guests are one boot sector: enough for everything that libvirt, qemu and we have to agree on.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from distgate.errors import ConfigurationError, TimedOut
from distgate.guests import watchdog
from distgate.guests.accelerator import Accelerator
from distgate.guests.domain_xml import DomainSpec, domain_xml
from distgate.guests.host import GuestStopped, LibvirtGuests
from distgate.guests.libvirt_connection import reap
from distgate.waiting import wait_for

EMULATED = Accelerator("tcg", "the tests need no more", 1.0)
HALT = bytes([0xF4, 0xEB, 0xFD])  # hlt; jmp -3
POWER_OFF = bytes([0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF])  # mov dx, 0x604; mov ax, 0x2000; out dx, ax


def says(text: str) -> bytes:
    """Machine code that writes ``text`` to the serial port."""
    return b"\xba\xf8\x03" + b"".join(bytes([0xB0, letter, 0xEE]) for letter in text.encode())


def boot_sector(path: Path, code: bytes) -> Path:
    sector = (code + HALT).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(1 << 20, b"\0"))  # the BIOS does not take a smaller disk
    return path


def host(state: Path) -> LibvirtGuests:
    return LibvirtGuests(state, memory=64, accelerated_by=EMULATED)


def test_a_guest_that_never_answers_is_given_up_with_the_tail_of_its_console(tmp_path: Path) -> None:
    image = boot_sector(tmp_path / "mute.img", says("kernel panic"))
    with pytest.raises(TimedOut, match="ssh banner") as gave_up, host(tmp_path).boot(image, image, tmp_path / "w", 6):
        pass
    assert "kernel panic" in gave_up.value.evidence
    assert [left.name for left in sorted((tmp_path / "w").iterdir())] == ["console.log", "qemu.log"]


def test_a_guest_that_powers_off_is_noticed_before_the_deadline(tmp_path: Path) -> None:
    image = boot_sector(tmp_path / "short.img", says("last words") + POWER_OFF)
    with (
        pytest.raises(GuestStopped, match="ended before") as stopped,
        host(tmp_path).boot(image, image, tmp_path, 30),
    ):
        pass
    assert "last words" in stopped.value.evidence


def test_an_image_that_does_not_exist_is_a_configuration_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"no image .*nothing\.qcow2"),
        host(tmp_path).boot(tmp_path / "nothing.qcow2", tmp_path, tmp_path, 5),
    ):
        pass


def test_guests_of_one_process_can_start_side_by_side(tmp_path: Path) -> None:
    ends: list[type[BaseException]] = []

    def boot(number: int) -> None:
        image = boot_sector(tmp_path / f"{number}.img", POWER_OFF)
        try:
            with host(tmp_path).boot(image, image, tmp_path / str(number), 30):
                pass
        except GuestStopped as error:
            ends.append(type(error))

    threads = [threading.Thread(target=boot, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [GuestStopped] * 2


WORKER = """
import sys
from pathlib import Path
from distgate.guests.accelerator import Accelerator
from distgate.guests.host import LibvirtGuests
state, image = Path(sys.argv[1]), Path(sys.argv[2])
emulated = Accelerator("tcg", "test", 1.0)
with LibvirtGuests(state, memory=64, accelerated_by=emulated).boot(image, image, state / "w", 500):
    pass
"""


@contextmanager
def worker_with_a_guest(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, int]]:
    """Another process in the middle of a boot: itself, its private directory, its guest's process ID."""
    image = boot_sector(tmp_path / "mute.img", b"")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, image])
    try:
        record = wait_for("the worker's record", lambda: next(iter((tmp_path / "guests").glob("*.json")), None), 60)
        root = Path(json.loads(record.read_text())["root"])
        guest = wait_for("the worker's guest", lambda: next(iter(watchdog.guests_of(root)), None), 60)
        yield worker, root, guest
    finally:
        worker.kill()
        worker.wait()


def gone(guest: int) -> bool:
    return watchdog.start_time(guest) == ""


def test_the_guest_of_a_worker_killed_by_kill_9_is_gone_and_so_is_its_directory(tmp_path: Path) -> None:
    with worker_with_a_guest(tmp_path) as (worker, root, guest):
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        wait_for("the end of the guest", lambda: gone(guest), 20)
        wait_for("the end of its directory", lambda: not root.exists(), 20)
        wait_for("the end of its record", lambda: not list((tmp_path / "guests").glob("*.json")), 20)


def test_reap_spares_the_living_and_takes_what_is_left_when_the_watchdog_died_too(tmp_path: Path) -> None:
    with worker_with_a_guest(tmp_path) as (worker, root, guest):
        assert reap(tmp_path) == []
        assert not gone(guest)
        os.kill(watchdog_of(root), signal.SIGKILL)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        assert guest in reap(tmp_path, dry_run=True)
        assert guest in reap(tmp_path)  # libvirt may be asking another emulator what it can do
        wait_for("the end of the guest", lambda: gone(guest), 20)
        assert not root.exists()
        assert reap(tmp_path) == []


def watchdog_of(root: Path) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        words = (entry / "cmdline").read_bytes().split(b"\0")
        if str(root).encode() in words and any(word.endswith(b"watchdog.py") for word in words):
            return int(entry.name)
    raise AssertionError("no watchdog")


SPEC = DomainSpec("guest-1", Path("/w/<odd> & 'name'.qcow2"), Path("/w/console.log"), "/usr/bin/qemu", "qemu")


def test_the_domain_quotes_what_it_is_given_and_asks_for_a_port_that_cannot_be_lost() -> None:
    domain = ElementTree.fromstring(domain_xml(SPEC))
    source = domain.find("devices/disk/source")
    assert source is not None
    assert source.get("file") == str(SPEC.disk)
    assert "hostfwd=tcp:127.0.0.1:0-:22" in domain_xml(SPEC)


@pytest.mark.parametrize(("isolated", "word"), [(True, "on"), (False, "off")])
def test_a_guest_reaches_the_network_only_when_it_is_allowed_to(isolated: bool, word: str) -> None:
    spec = DomainSpec("g", Path("/d"), Path("/c"), "/q", "kvm", isolated=isolated)
    assert re.search(rf"restrict={word}\b", domain_xml(spec))
