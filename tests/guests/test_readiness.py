"""What systemd said of a boot is read as it prints it, and a failed unit is blamed on whoever broke it."""

from __future__ import annotations

import pytest

from distgate.errors import InfrastructureError
from distgate.guests.boot import (
    BANNER,
    COMMAND,
    MOST_SHOWN,
    BootMilestone,
    BootReport,
    UnitTime,
    judge_units,
    panic,
    read_systemd,
)

#: Of a Fedora-like guest: an initrd with systemd, one failed unit, one that never started.
SAID = """degraded
InitRDTimestampMonotonic=1500000
UserspaceTimestampMonotonic=4000000
FinishTimestampMonotonic=9500000

Id=sshd.service
ActiveState=active
InactiveExitTimestampMonotonic=6000000
ActiveEnterTimestampMonotonic=6400000

Id=dracut-initqueue.service
ActiveState=inactive
InactiveExitTimestampMonotonic=2000000
ActiveEnterTimestampMonotonic=3000000

Id=broken.service
ActiveState=failed
InactiveExitTimestampMonotonic=7000000
ActiveEnterTimestampMonotonic=0

Id=never.mount
ActiveState=inactive
InactiveExitTimestampMonotonic=0
ActiveEnterTimestampMonotonic=0
"""


def test_state_failed_units_slowest_units_and_the_phases_of_a_boot_are_read() -> None:
    facts = read_systemd(SAID)
    assert facts.state == "degraded"
    assert facts.failed_units == ("broken.service",)
    assert facts.slowest_units == (UnitTime("dracut-initqueue.service", 1.0), UnitTime("sshd.service", 0.4))
    assert (facts.kernel_seconds, facts.initrd_seconds, facts.userspace_seconds) == (1.5, 2.5, 5.5)


#: What was said; state, kernel's, initrd's and userspace's seconds.
PHASES = (
    ("running\nUserspaceTimestampMonotonic=3900000\nFinishTimestampMonotonic=7400000\n", "running", 3.9, 0.0, 3.5),
    ("starting\nUserspaceTimestampMonotonic=3900000\nFinishTimestampMonotonic=0\n", "starting", 3.9, 0.0, 0.0),
    ("", "", 0.0, 0.0, 0.0),
)


@pytest.mark.parametrize(("said", "state", "kernel", "initrd", "userspace"), PHASES)
def test_a_phase_that_has_not_been_counts_nothing(
    said: str, state: str, kernel: float, initrd: float, userspace: float
) -> None:
    facts = read_systemd(said)
    assert (facts.state, facts.kernel_seconds, facts.initrd_seconds, facts.userspace_seconds) == (
        state,
        kernel,
        initrd,
        userspace,
    )


def test_only_the_slowest_units_are_shown() -> None:
    blocks = [
        f"Id=u{n}.service\nInactiveExitTimestampMonotonic=1\nActiveEnterTimestampMonotonic={n}00001"
        for n in range(30)
    ]
    slowest = read_systemd("running\n\n" + "\n\n".join(blocks)).slowest_units
    assert len(slowest) == MOST_SHOWN
    assert slowest[0] == UnitTime("u29.service", 2.9)


def test_a_time_that_is_no_number_is_no_zero() -> None:
    with pytest.raises(InfrastructureError, match="FinishTimestampMonotonic"):
        read_systemd("running\nFinishTimestampMonotonic=soon\n")


#: Failed in the base, failed in the image; broken by the packages, inherited.
UNITS = (
    ((), (), (), ()),
    ((), ("a.service",), ("a.service",), ()),
    (("a.service",), ("a.service",), (), ("a.service",)),
    (("a.service",), ("b.mount", "a.service"), ("b.mount",), ("a.service",)),
    (("a.service",), (), (), ()),
)


@pytest.mark.parametrize(("base", "image", "broken", "inherited"), UNITS)
def test_a_unit_that_fails_in_the_image_and_not_in_the_base_is_the_packages_fault(
    base: tuple[str, ...], image: tuple[str, ...], broken: tuple[str, ...], inherited: tuple[str, ...]
) -> None:
    verdict = judge_units(base, image)
    assert (verdict.broken, verdict.inherited, verdict.passed) == (broken, inherited, not broken)
    assert all(unit in verdict.sentence for unit in broken + inherited)


def test_a_report_shows_conditions_with_their_evidence_and_names_what_failed() -> None:
    reached = (BootMilestone(BANNER, 7.25, "SSH-2.0-OpenSSH_9.2"), BootMilestone(COMMAND, 8.0, "true"))
    report = BootReport("tcg", reached, "degraded", ("broken.service",), (UnitTime("slow.service", 3.0),), 4.0)
    shown = "\n".join(report.lines())
    for words in ("tcg", "degraded", "7.25 s", "SSH-2.0-OpenSSH_9.2", "FAILED: broken.service", "slow.service"):
        assert words in shown


def test_the_steps_of_a_boot_add_up_to_its_last_condition() -> None:
    report = BootReport("kvm", (BootMilestone("one", 1.5), BootMilestone("two", 1.5), BootMilestone("three", 4.0)))
    assert [(step.name, step.seconds) for step in report.steps] == [("one", 1.5), ("two", 0.0), ("three", 2.5)]


PANICS: list[tuple[str, str]] = [
    ("[ 1.9] ---[ end Kernel panic - not syncing: no init ]---\n", "Kernel panic - not syncing: no init"),
    ("[ 1.9] Kernel panic - not syncing: VFS: no root\n[ 1.9] Rebooting in 10 seconds..\n", ""),
    ("[ 1.9] Freeing unused kernel memory\n", ""),
    ("", ""),
]


@pytest.mark.parametrize(("console", "said"), PANICS)
def test_a_kernel_that_gave_up_is_told_from_one_that_restarts(console: str, said: str) -> None:
    assert panic(console) == said
