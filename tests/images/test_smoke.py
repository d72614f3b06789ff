"""The smoke test compares what is installed with what was chosen, name by name and byte by byte."""

from __future__ import annotations

import pytest

from distgate.errors import InfrastructureError
from distgate.images.smoke import SmokeReport, judge
from distgate.rpm.nevra import Nevra

UNIX = Nevra("dos2unix", 0, "7.5.2", "3.fc41", "x86_64", "dos2unix-7.5.2-3.fc41.src.rpm")
MAKE = Nevra("make", 1, "4.4.1", "8.fc41", "x86_64", "make-4.4.1-8.fc41.src.rpm")
FOO = Nevra("foo", 0, "1", "1", "noarch", "foo-1-1.src.rpm")
CORE = Nevra("kernel-core", 0, "6.11.4", "301.fc41", "x86_64", "kernel-6.11.4-301.fc41.src.rpm")
RT_CORE = Nevra("kernel-rt-core", 0, "6.11.4", "301.fc41", "x86_64", "kernel-rt-6.11.4-301.fc41.src.rpm")
HEADERS = Nevra("kernel-headers", 0, "6.11.3", "1.fc41", "x86_64", "kernel-headers-6.11.3-1.fc41.src.rpm")
LONG = Nevra("kernel-core", 0, "6", "1." + "a" * 80, "x86_64", "kernel-6-1.src.rpm")
ODD = Nevra("kernel-core", 0, "9", "1", "x86_64", "mykernel-9-1.src.rpm")


def lines(*packages: Nevra) -> list[str]:
    return [
        f"{one.name}|{one.epoch}|{one.version}|{one.release}|{one.arch}|{one.source_rpm or '(none)'}"
        for one in packages
    ]


def other(package: Nevra, **changes: object) -> Nevra:
    return Nevra(**{**vars(package), **changes})  # type: ignore[arg-type]


KEY = "gpg-pubkey|0|a15b79cc|63d04c2c|(none)|(none)"
FC41 = "6.11.4-301.fc41.x86_64"

# expected, lines of the database, uname -r, passed, words of the sentence
CASES: list[tuple[list[Nevra], list[str], str, bool, str]] = [
    ([UNIX], [KEY, *lines(UNIX, MAKE)], FC41, True, "the guest boots with the package under test: dos2unix-7.5.2-3"),
    ([UNIX, MAKE], lines(UNIX, MAKE), FC41, True, "all 2 packages under test"),
    ([UNIX], [*lines(UNIX), ""], FC41, True, "dos2unix"),
    ([UNIX], lines(MAKE), FC41, False, "not installed: dos2unix-7.5.2-3.fc41.x86_64"),
    ([UNIX], [], FC41, False, "not installed: dos2unix"),
    ([UNIX], lines(other(UNIX, release="2.fc41")), FC41, False, "dos2unix-7.5.2-2.fc41.x86_64 found"),
    ([UNIX], lines(other(UNIX, arch="i686")), FC41, False, "wrong version: dos2unix-7.5.2-3.fc41.x86_64 expected"),
    ([MAKE], lines(other(MAKE, epoch=0)), FC41, False, "make-1:4.4.1-8.fc41.x86_64 expected"),
    ([FOO], lines(other(FOO, name="python3-foo")), FC41, False, "not installed: foo-1-1.noarch"),
    ([UNIX], lines(other(UNIX, version="7x5.2")), FC41, False, "wrong version"),
    ([UNIX], lines(other(UNIX, source_rpm="")), FC41, True, "dos2unix"),
    ([UNIX, FOO], lines(UNIX), FC41, False, "not installed: foo-1-1.noarch"),
    ([], lines(UNIX), FC41, False, "nothing was tested"),
    ([CORE], lines(CORE), FC41, True, "kernel-core"),
    ([CORE], lines(CORE), f"{FC41}+debug", True, "kernel-core"),
    ([CORE], lines(CORE, other(CORE, release="300.fc41")), FC41, True, "kernel-core"),
    ([CORE], lines(CORE), "6.11.3-300.fc41.x86_64", False, f"runs kernel 6.11.3-300.fc41.x86_64, not {FC41}"),
    ([CORE], lines(CORE), f"{FC41}0", False, "runs kernel"),
    ([RT_CORE], lines(RT_CORE), f"{FC41}+rt", True, "kernel-rt-core"),
    ([RT_CORE], lines(RT_CORE), "6.1.0-cloud", False, "runs kernel 6.1.0-cloud"),
    ([HEADERS], lines(HEADERS), FC41, True, "kernel-headers"),
    ([ODD], lines(ODD), FC41, True, "kernel-core-9-1"),
    ([LONG], lines(LONG), f"6-1.{'a' * 62}.x86_64", True, "kernel-core"),
]


@pytest.mark.parametrize(("expected", "database", "kernel", "passed", "words"), CASES)
def test_what_is_installed_is_compared_exactly(
    expected: list[Nevra], database: list[str], kernel: str, passed: bool, words: str
) -> None:
    report = judge(expected, database, kernel + "\n")
    assert report.passed is passed
    assert words in report.sentence


def test_missing_and_wrong_packages_are_told_apart() -> None:
    report = judge([UNIX, FOO, MAKE], lines(other(UNIX, release="9"), MAKE), FC41)
    assert (report.right, report.missing, [one.expected for one in report.wrong]) == ((MAKE,), (FOO,), [UNIX])


def test_a_long_list_is_cut_short_in_the_sentence() -> None:
    many = [other(FOO, name=f"lib{number}") for number in range(9)]
    assert judge(many, [], FC41).sentence.endswith("and 4 more")


def test_a_database_that_cannot_be_read_is_not_the_packages_fault() -> None:
    with pytest.raises(InfrastructureError, match="no package") as broken:
        judge([UNIX], ["error: rpmdb: BDB0113"], FC41)
    assert "BDB0113" in broken.value.evidence


def test_a_report_is_a_plain_record() -> None:
    assert SmokeReport((UNIX,), (), ()).passed
