"""Guests that are kept: they outlive who asked for them, never their deadline, and nothing is left of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, TimedOut
from distgate.guests.accelerator import Accelerator
from distgate.guests.monitor import HeldGuests, MonitorSpec, _watch, end_held
from distgate.guests.registry import GuestRecord, GuestRegistry, emulator_of
from distgate.guests.watchdog import start_time
from distgate.images.base import BaseImage
from distgate.text import printable
from distgate.waiting import wait_for

#: hlt; jmp -3: a guest that does nothing, and so never answers.
MUTE = bytes([0xF4, 0xEB, 0xFD]).ljust(510, b"\0") + b"\x55\xaa"

ASK = """
import sys
from pathlib import Path
from distgate.guests.accelerator import Accelerator
from distgate.guests.monitor import HeldGuests
state, image = Path(sys.argv[1]), Path(sys.argv[2])
host = HeldGuests(state, 600, memory=64, accelerated_by=Accelerator("tcg", "test", 1.0))
with host.boot(image, image, state / "w", 500):
    pass
"""


def record(name: str = "guest-1", **other: object) -> GuestRecord:
    known: dict[str, object] = {
        "name": name,
        "pid": os.getpid(),
        "started": start_time(os.getpid()),
        "qemu_pid": 1,
        "port": 2222,
        "key": Path("/k e y"),
        "console": Path("/console.log"),
        "image": Path("/image.qcow2"),
        "workdir": Path("/w"),
        "run": "",
        "since": 1.0,
    }
    return GuestRecord(**(known | other))  # type: ignore[arg-type]


@pytest.fixture
def nothing_held(tmp_path: Path) -> Iterator[None]:
    """Ends what a failed test leaves behind."""
    yield
    for left in GuestRegistry(tmp_path).all():
        end_held(tmp_path, left)


@pytest.fixture
def mute(tmp_path: Path) -> Path:
    image = tmp_path / "mute.img"
    image.write_bytes(MUTE.ljust(1 << 20, b"\0"))
    return image


def test_a_record_is_found_by_its_name_or_a_part_of_it_and_its_ssh_line_can_be_pasted(tmp_path: Path) -> None:
    registry = GuestRegistry(tmp_path)
    registry.enter(record("guest-1a"))
    registry.enter(record("guest-2b"))
    assert registry.find("2b") == record("guest-2b")
    assert registry.find("guest-1a").ssh_line.endswith("-i '/k e y' -p 2222 root@127.0.0.1")
    registry.leave("guest-1a")
    assert [one.name for one in registry.all()] == ["guest-2b"]


@pytest.mark.parametrize(("name", "words"), [("guest", "several"), ("3c", "no running"), ("", "no running")])
def test_a_name_that_is_not_clear_is_refused(tmp_path: Path, name: str, words: str) -> None:
    registry = GuestRegistry(tmp_path)
    for known in ("guest-1a", "guest-2b"):
        registry.enter(record(known))
    with pytest.raises(ConfigurationError, match=words):
        registry.find(name)


def test_records_of_processes_that_are_gone_and_files_that_are_none_are_not_shown(tmp_path: Path) -> None:
    registry = GuestRegistry(tmp_path)
    registry.enter(record("guest-1", started="0"))
    registry.enter(record("guest-2"))
    (registry.directory / "odd.json").write_text("{")
    assert [one.name for one in registry.all()] == ["guest-2"]
    assert sorted(path.name for path in registry.directory.iterdir()) == ["guest-2.json", "odd.json"]


def test_a_guest_that_a_run_works_with_is_not_ended_by_hand(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a run works with guest guest-1"):
        end_held(tmp_path, record())


def test_a_guest_that_never_answers_is_the_same_error_through_a_holder(tmp_path: Path, mute: Path) -> None:
    host = HeldGuests(tmp_path, 600, memory=64, accelerated_by=Accelerator("tcg", "test", 1.0))
    with pytest.raises(TimedOut, match="ssh banner"), host.boot(mute, mute, tmp_path / "w", 4):
        pass
    assert not list((tmp_path / "monitors").iterdir())
    assert sorted(one.name for one in (tmp_path / "w").iterdir()) == ["console.log", "monitor.log", "qemu.log"]


def test_a_guest_that_is_not_kept_ends_with_who_asked_for_it_even_by_kill_9(tmp_path: Path, mute: Path) -> None:
    asks = subprocess.Popen([sys.executable, "-c", ASK, tmp_path, mute])
    try:
        found = wait_for("the holder's guest", lambda: next(iter((tmp_path / "w").glob("guest-*.qcow2")), None), 60)
        emulator = wait_for("its emulator", lambda: emulator_of(found.stem) or None, 60)
    finally:
        asks.kill()
        asks.wait()
    wait_for("the end of the guest", lambda: not start_time(emulator), 30)
    wait_for("the end of its overlay", lambda: not found.exists(), 30)


@pytest.mark.guest
@pytest.mark.usefixtures("nothing_held")
def test_a_kept_guest_is_listed_let_in_by_ssh_and_ended_by_hand_or_at_its_deadline(
    base_image: BaseImage, tmp_path: Path
) -> None:
    host = HeldGuests(tmp_path, 600)
    with host.boot(base_image.path, base_image.ssh_key, tmp_path / "w", 120) as guest:
        kept = host.keep(guest, "a test failed")
    (known,) = GuestRegistry(tmp_path).all()
    assert (known.name, known.ssh_line, known.why) == (kept.name, kept.ssh, "a test failed")
    assert distgate(tmp_path, "guests", "ssh", known.name, "--", "echo", "in;", "exit", "3") == (3, "in\n")
    listed = json.loads(distgate(tmp_path, "guests", "list", "--json")[1])["guests"]
    assert [(one["name"], one["held"]) for one in listed] == [(known.name, True)]
    assert distgate(tmp_path, "guests", "console", known.name)[1] == printable(known.console.read_text())

    # A second guest, kept for no time at all: its holder ends it by itself.
    brief = HeldGuests(tmp_path, 0)
    with brief.boot(base_image.path, base_image.ssh_key, tmp_path / "w2", 120) as guest:
        order = next(path for path in (tmp_path / "monitors").iterdir() if path != known.control) / "keep.json"
        emulator = emulator_of(guest.name)
        order.with_suffix(".new").write_text(json.dumps({"seconds": 0, "after_owner": False, "why": ""}))
        order.with_suffix(".new").replace(order)
        wait_for("the end of its time", lambda: not start_time(emulator), 60)

    assert distgate(tmp_path, "guests", "down", known.name)[0] == 0
    assert not start_time(known.qemu_pid)
    assert not list((tmp_path / "w").glob("*.qcow2"))
    wait_for("an empty control directory", lambda: not list((tmp_path / "monitors").iterdir()), 30)
    assert GuestRegistry(tmp_path).all() == []


def test_the_time_of_a_kept_guest_begins_when_its_owner_ends_and_is_kept_to(tmp_path: Path) -> None:
    owner, emulator = (subprocess.Popen(["sleep", "1000"]) for _ in range(2))
    try:
        spec = MonitorSpec(tmp_path, Path(), Path(), Path(), 1, owner.pid, start_time(owner.pid))
        known = record(qemu_pid=emulator.pid)
        GuestRegistry(tmp_path).enter(known)
        (tmp_path / "keep.json").write_text(json.dumps({"seconds": 0.2, "after_owner": True, "why": "red"}))
        holder = threading.Thread(target=_watch, args=(spec, known, tmp_path, threading.Event()))
        holder.start()
        wait_for("a promise", lambda: GuestRegistry(tmp_path).find("guest-1").held, 30)
        holder.join(1.5)
        assert holder.is_alive()
        owner.kill()
        owner.wait()
        holder.join(30)
        assert not holder.is_alive()
        assert emulator.poll() is None  # the time was over, not the guest
    finally:
        for process in (owner, emulator):
            process.kill()
            process.wait()


@pytest.mark.guest
@pytest.mark.usefixtures("nothing_held")
def test_the_guest_of_a_holder_that_was_killed_is_gone(base_image: BaseImage, tmp_path: Path) -> None:
    host = HeldGuests(tmp_path, 0, after_owner=True)  # no time at all, but that does not begin before our end
    with host.boot(base_image.path, base_image.ssh_key, tmp_path / "w", 120) as guest:
        host.keep(guest, "")
    (known,) = GuestRegistry(tmp_path).all()
    os.kill(known.pid, signal.SIGKILL)
    wait_for("the end of the guest", lambda: not start_time(known.qemu_pid), 30)
    assert GuestRegistry(tmp_path).all() == []


def distgate(state: Path, *words: str) -> tuple[int, str]:
    said = subprocess.run(
        [sys.executable, "-m", "distgate.cli", *words],
        env={**os.environ, "DISTGATE_GUESTS_DIR": str(state)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    return said.returncode, said.stdout
