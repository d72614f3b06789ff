"""A conformance run that cannot begin says why, and leaves nothing: no guest, no network, no directory.

Its guests are one boot sector each; tests/conformance/test_conformance_on_guests.py has real ones.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from distgate.conformance.cluster import LibvirtProvider, side_by_side
from distgate.conformance.run import Conformance, Deadlines
from distgate.conformance.topology import Node, Topology, read_topology
from distgate.errors import ConfigurationError, TimedOut
from distgate.guests import watchdog
from distgate.guests.accelerator import Accelerator
from distgate.guests.host import GuestStopped
from distgate.guests.libvirt_connection import embedded_libvirt
from distgate.waiting import wait_for

EMULATED = Accelerator("tcg", "the tests need no more", 1.0)
HALT = bytes([0xF4, 0xEB, 0xFD])  # hlt; jmp -3
POWER_OFF = bytes([0xBA, 0x04, 0x06, 0xB8, 0x00, 0x20, 0xEF])  # mov dx, 0x604; mov ax, 0x2000; out dx, ax


def boot_sector(path: Path, code: bytes = b"") -> Path:
    sector = (code + HALT).ljust(510, b"\0") + b"\x55\xaa"
    path.write_bytes(sector.ljust(1 << 20, b"\0"))  # the BIOS does not take a smaller disk
    return path


def pair(place: Path) -> Topology:
    nodes = tuple(Node(name, memory=64) for name in ("one", "two"))
    return Topology("pair", place, nodes, "install.yml", "conformance.yml", requires=("needed",))


def conformance(place: Path, seconds: float) -> Conformance:
    provider = LibvirtProvider(place / "state", accelerated_by=EMULATED)
    return Conformance(pair(place), provider, variables={"needed": 1}, deadlines=Deadlines(provision=seconds))


def sockets_of_networks(place: Path) -> list[Path]:
    return list(embedded_libvirt(place / "state").root.glob("net-*"))


@pytest.mark.parametrize(("code", "error"), [(b"", TimedOut), (POWER_OFF, GuestStopped)])
def test_nodes_that_do_not_come_up_are_the_infrastructures_and_are_gone(
    code: bytes, error: type[Exception], tmp_path: Path
) -> None:
    image = boot_sector(tmp_path / "image", code)
    with pytest.raises(error):
        conformance(tmp_path, 6).run(image, image, tmp_path / "room")
    assert not sockets_of_networks(tmp_path)
    left = sorted(path.name for path in (tmp_path / "room" / "nodes").glob("*/*"))
    assert left == ["console.log", "console.log", "qemu.log", "qemu.log"]


def test_variables_that_the_profile_needs_are_asked_for_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needed"):
        Conformance(pair(tmp_path), LibvirtProvider(tmp_path / "state"))


def test_a_room_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not empty"):
        conformance(tmp_path, 1).run(tmp_path, tmp_path, tmp_path.parent)


def test_when_one_of_several_fails_the_others_are_told_to_give_up() -> None:
    told = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            raise GuestStopped("it powered off")
        assert told.wait(60)

    with pytest.raises(GuestStopped, match="powered off"):
        side_by_side(work, range(3), told.set)
    assert side_by_side(lambda number: 2 * number, range(3), told.set) == [0, 2, 4]


WORKER = """
import sys
from pathlib import Path
from distgate.guests.accelerator import Accelerator
from distgate.conformance.cluster import LibvirtProvider
from distgate.conformance.run import Conformance, Deadlines
from distgate.conformance.topology import Node, Topology
place, image = Path(sys.argv[1]), Path(sys.argv[2])
nodes = tuple(Node(name, memory=64) for name in ("one", "two"))
provider = LibvirtProvider(place / "state", accelerated_by=Accelerator("tcg", "test", 1.0))
topology = Topology("pair", place, nodes, "install.yml", "conformance.yml")
Conformance(topology, provider, deadlines=Deadlines(provision=500)).run(image, image, place / "room")
"""


def test_nothing_is_left_of_a_run_whose_worker_is_killed_by_kill_9(tmp_path: Path) -> None:
    image = boot_sector(tmp_path / "mute.img")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, tmp_path, image])
    try:
        records = tmp_path / "state" / "guests"
        record = wait_for("the worker's record", lambda: next(iter(records.glob("*.json")), None), 60)
        root = Path(json.loads(record.read_text())["root"])
        consoles = [tmp_path / "room" / "nodes" / name / "console.log" for name in ("one", "two")]
        wait_for("both consoles", lambda: all(console.exists() for console in consoles), 60)
        wait_for("both guests", lambda: len(watchdog.guests_of(root)) >= 2, 60)
        guests = watchdog.guests_of(root)
        assert list(root.glob("net-*/switch"))
        worker.send_signal(signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait()
    for guest in guests:
        wait_for(f"the end of {guest}", lambda guest=guest: watchdog.start_time(guest) == "", 20)
    wait_for("the end of the directory with the network", lambda: not root.exists(), 20)


def test_the_labs_miniature_cluster_is_a_profile_like_any_other() -> None:
    topology = read_topology(Path(__file__).parents[2] / "lab" / "cluster")
    assert [node.name for node in topology.nodes] == ["server", "worker"]
