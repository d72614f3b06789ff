"""A base image is judged by what it says of itself when it is booted; one real guest, and a table of sayings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bases import BASH, EMULATED, KERNEL, OFFLINE, SAID, ToldGuests, failing, line

from distgate.base_images.qualification import (
    FAILED_UNITS_COMMAND,
    STATE_COMMAND,
    GuestState,
    Qualification,
    findings,
    qualify,
)
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, TimedOut
from distgate.guests.accelerator import accelerator
from distgate.guests.base import CommandResult
from distgate.guests.host import GuestStopped, LibvirtGuests
from distgate.images.base import BaseImage
from distgate.images.smoke import INSTALLED_COMMAND, KERNEL_COMMAND
from distgate.process import ProcessTimedOut, run
from distgate.records import from_json, to_json
from distgate.rpm.nevra import QUERY, Nevra

BASE = BaseImage(Path("/images/base.qcow2"), "0123456789abcdef", 0, Path("/images/key"))
LISTED = SAID[INSTALLED_COMMAND]
GOOD = GuestState("running", (), LISTED, "6.11.4-301.fc41.x86_64")
NEWER = replace(BASH, release="2.fc41")


def rpm(*packages: Nevra) -> CommandResult:
    return CommandResult(0, "".join(f"{line(package)}\n" for package in packages), "")


CASES: list[tuple[str, GuestState, tuple[Nevra, ...], list[str]]] = [
    ("all is well", GOOD, OFFLINE, []),
    ("the order and the source do not matter", GOOD, (KERNEL, replace(BASH, source_rpm="")), []),
    (
        "two keys of one name",
        replace(GOOD, rpm=rpm(*OFFLINE, Nevra("gpg-pubkey", 0, "a1", "1", "(none)"))),
        (*OFFLINE, Nevra("gpg-pubkey", 0, "a1", "1", "(none)")),
        [],
    ),
    (
        "a unit failed",
        replace(GOOD, systemd_state="degraded", failed_units=("sshd.socket", "x.mount")),
        OFFLINE,
        ["units failed: sshd.socket, x.mount"],
    ),
    (
        "a unit failed and was forgotten",
        replace(GOOD, systemd_state="degraded"),
        OFFLINE,
        ["systemd says 'degraded', not 'running'"],
    ),
    ("never settles", replace(GOOD, systemd_state="starting"), OFFLINE, ["systemd says 'starting', not 'running'"]),
    ("rescue", replace(GOOD, systemd_state="maintenance"), OFFLINE, ["systemd says 'maintenance', not 'running'"]),
    (
        "the database is broken",
        replace(GOOD, rpm=CommandResult(1, "", "warning\nerror: rpmdb open failed\n")),
        OFFLINE,
        ["rpm -qa ended with status 1: error: rpmdb open failed"],
    ),
    (
        "the database lists nonsense",
        replace(GOOD, rpm=CommandResult(0, "bash\n", "")),
        OFFLINE,
        ["the guest's rpm said something that is no package: bash"],
    ),
    (
        "a package is gone",
        replace(GOOD, rpm=rpm(KERNEL)),
        OFFLINE,
        ["packages on its disk that the guest does not have: bash-5.2-1.fc41.x86_64"],
    ),
    (
        "another version",
        replace(GOOD, rpm=rpm(NEWER, KERNEL)),
        OFFLINE,
        [
            "packages on its disk that the guest does not have: bash-5.2-1.fc41.x86_64",
            "packages of the guest that are not on its disk: bash-5.2-2.fc41.x86_64",
        ],
    ),
    (
        "nothing installed",
        replace(GOOD, rpm=CommandResult(0, "", "")),
        (),
        ["its RPM database holds no package"],
    ),
    (
        "another kernel",
        replace(GOOD, kernel="6.1.0-18-amd64"),
        OFFLINE,
        ["the guest runs kernel 6.1.0-18-amd64, not 6.11.4-301.fc41.x86_64"],
    ),
]


@pytest.mark.parametrize(("case", "said", "offline", "expected"), CASES, ids=[case[0] for case in CASES])
def test_what_a_guest_says_decides(
    case: str, said: GuestState, offline: tuple[Nevra, ...], expected: list[str]
) -> None:
    assert list(findings(said, offline)) == expected


def test_a_good_guest_qualifies_its_base_and_the_record_reads_back(tmp_path: Path) -> None:
    outcome = qualify(BASE, OFFLINE, ToldGuests(), EMULATED, tmp_path, 10)
    assert outcome.passed
    assert (outcome.accelerator, outcome.systemd_state, outcome.packages) == ("tcg", "running", 2)
    assert outcome.kernel == "6.11.4-301.fc41.x86_64"
    assert from_json(to_json(outcome), Qualification, "qualification.json") == outcome


def test_failed_units_are_in_the_record(tmp_path: Path) -> None:
    outcome = qualify(BASE, OFFLINE, ToldGuests(failing()), EMULATED, tmp_path, 10)
    assert not outcome.passed
    assert outcome.failed_units == ("sshd.socket",)


def test_systemd_is_waited_for_while_it_starts_but_not_for_ever(tmp_path: Path) -> None:
    said = {**SAID, STATE_COMMAND: CommandResult(1, "starting\n", "")}
    outcome = qualify(BASE, OFFLINE, ToldGuests(said), EMULATED, tmp_path, 10)
    assert outcome.reasons == ("systemd says 'starting', not 'running'",)


UNFIT: list[tuple[DistgateError, str]] = [
    (
        TimedOut("gave up after 30 s waiting for the guest's ssh banner", evidence="Kernel panic\n\n"),
        "it does not boot: gave up .* ssh banner; the last that was seen: Kernel panic",
    ),
    (GuestStopped("guest-1 ended before it answered ssh"), "it does not boot: guest-1 ended before"),
    (InfrastructureError("ssh failed", evidence="root@h: Permission denied (publickey)."), "Permission denied"),
]


@pytest.mark.parametrize(("fault", "words"), UNFIT)
def test_a_base_that_does_not_get_as_far_as_ssh_is_refused(tmp_path: Path, fault: DistgateError, words: str) -> None:
    outcome = qualify(BASE, OFFLINE, ToldGuests(refused=fault), EMULATED, tmp_path, 10)
    assert not outcome.passed
    assert [bool(re.search(words, reason)) for reason in outcome.reasons] == [True]


@pytest.mark.parametrize("fault", [InfrastructureError("ssh failed"), ProcessTimedOut("ssh was killed after 3 s")])
def test_a_guest_that_stops_answering_is_refused(tmp_path: Path, fault: DistgateError) -> None:
    guests = ToldGuests(lost=fault)
    outcome = qualify(BASE, OFFLINE, guests, EMULATED, tmp_path, 10)
    assert outcome.reasons == (f"it stopped answering: {fault.message}",)
    assert guests.boots == 2  # ssh may have been ended by others: it is looked at once more


ENDED = CommandResult(-15, "", "")
INTERRUPTED = [
    (
        "while it booted",
        ToldGuests(refused=GuestStopped("gone", evidence="qemu: terminating on signal 15 from pid 7")),
    ),
    *(("by signal 15", ToldGuests({**SAID, command: ENDED})) for command in SAID),
]


@pytest.mark.parametrize(("words", "guests"), INTERRUPTED)
def test_a_qualification_that_somebody_ends_is_no_verdict_on_the_base(
    tmp_path: Path, words: str, guests: ToldGuests
) -> None:
    with pytest.raises(InfrastructureError, match=words):
        qualify(BASE, OFFLINE, guests, EMULATED, tmp_path, 10)


@pytest.mark.parametrize("fault", [InfrastructureError("libvirt did not start"), ConfigurationError("no qemu here")])
def test_a_host_at_fault_is_no_verdict_on_the_base(tmp_path: Path, fault: DistgateError) -> None:
    with pytest.raises(type(fault), match=fault.message):
        qualify(BASE, OFFLINE, ToldGuests(refused=fault), EMULATED, tmp_path, 10)


@pytest.mark.guest
def test_the_lab_s_base_is_qualified_by_a_real_boot(base_image: BaseImage, tmp_path: Path) -> None:
    offline = on_disk(base_image, tmp_path)
    progress_lines: list[str] = []
    outcome = qualify(
        base_image, offline, LibvirtGuests(tmp_path), accelerator(), tmp_path / "w", 60, progress_lines.append
    )
    assert outcome.reasons == ()
    assert outcome.passed
    assert outcome.packages == len(offline)
    assert (tmp_path / "w/console.log").exists()
    assert any("questioned" in text for text in progress_lines)


def on_disk(base: BaseImage, scratch: Path) -> list[Nevra]:
    """The packages in the image's RPM database, read by other means than the product's."""
    raw, database = scratch / "disk.raw", scratch / "rpm"
    run(["qemu-img", "convert", "-O", "raw", base.path, raw], timeout=120)
    run(["debugfs", "-R", f"rdump /var/lib/rpm {scratch}", f"{raw}?offset={base.root_offset}"], timeout=60)
    raw.unlink()
    asked = run(["rpm", "--dbpath", database, "-qa", "--qf", QUERY], timeout=60, split_errors=True)
    return [Nevra.parse(line) for line in asked.output.splitlines()]


def test_the_commands_are_what_the_guest_is_asked() -> None:
    assert set(SAID) == {STATE_COMMAND, FAILED_UNITS_COMMAND, INSTALLED_COMMAND, KERNEL_COMMAND}
