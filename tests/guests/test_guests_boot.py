"""A real boot: left alone until it has a network, reported by named conditions, with its failed units by name."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from distgate.guests.accelerator import accelerator
from distgate.guests.boot import BANNER, COMMAND, EMULATOR, NETWORK, SYSTEMD
from distgate.guests.host import GuestStopped, LibvirtGuest, LibvirtGuests
from distgate.images.base import BaseImage

pytestmark = pytest.mark.guest
SECONDS = 120.0


@pytest.fixture(scope="module")
def guest(base_image: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibvirtGuest]:
    room = tmp_path_factory.mktemp("boot")
    with LibvirtGuests(room / "state").boot(base_image.path, base_image.ssh_key, room / "work", SECONDS) as running:
        yield running


def test_a_boot_reaches_its_conditions_in_their_order_each_with_evidence_and_a_time(guest: LibvirtGuest) -> None:
    names = [one.condition for one in guest.reached]
    assert names[0] == EMULATOR
    assert names[-3:] == [NETWORK, BANNER, COMMAND]
    times = [one.seconds for one in guest.reached]
    assert times == sorted(times)
    assert guest.boot_seconds >= times[-1] > 0
    assert next(one.evidence for one in guest.reached if one.condition == BANNER).startswith("SSH-2.0-")


def test_nobody_knocks_at_a_guest_before_it_has_a_network(guest: LibvirtGuest) -> None:
    said = guest.run("journalctl -b --no-pager _COMM=sshd | grep -c kex_exchange_identification", SECONDS)
    assert int(said.stdout) <= 1, "each connection that was given up costs the guest a process while it boots"


def test_what_was_needed_to_see_the_first_packet_is_gone_once_the_guest_runs(guest: LibvirtGuest) -> None:
    assert not list(guest.console.parent.glob("*.pcap"))


def test_the_report_lists_state_phases_and_slow_units_and_then_a_unit_that_fails(guest: LibvirtGuest) -> None:
    limit = SECONDS * accelerator().scale
    report = guest.boot_report(limit)
    assert (report.state, report.failed_units) == ("running", ())
    assert report.kernel_seconds > 0
    assert report.userspace_seconds > 0
    assert report.slowest_units
    assert report.reached[-1].condition == SYSTEMD
    guest.run("systemd-run --quiet --unit=broken -p DefaultDependencies=no -p Type=oneshot false", SECONDS)
    later = guest.boot_report(limit)
    assert (later.state, later.failed_units) == ("degraded", ("broken.service",))
    kept = guest.console.parent
    assert json.loads((kept / "boot.json").read_text())["failed_units"] == ["broken.service"]
    assert "FAILED: broken.service" in (kept / "boot.txt").read_text()


def test_a_guest_whose_kernel_panics_on_its_way_down_is_given_up_and_its_last_words_are_told(
    guest: LibvirtGuest,
) -> None:
    # The last test: nobody else can use this guest.
    crash = """-p 'ExecStop=/bin/sh -c "echo c >/proc/sysrq-trigger"'"""
    made = guest.run(f"systemd-run --quiet -p Type=oneshot -p RemainAfterExit=yes {crash} true", SECONDS)
    assert made.returncode == 0, made.stderr
    with pytest.raises(GuestStopped, match="gave up: Kernel panic - not syncing: sysrq triggered crash"):
        guest.reboot(10 * SECONDS)
