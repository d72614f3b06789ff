"""A build's log says whether %check ran, how it ended, and what the tests' own runner made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.builds.unit_tests import UnitTests, unit_tests
from distgate.process import run

SPEC = """\
Name: tiny
Version: 1
Release: 1
Summary: tiny
License: MIT
BuildArch: noarch
%description
tiny
%build
{build}
{check}
%files
"""

# what is built, what %check is, whether it builds, and what is read in the log that rpmbuild writes
REAL = [
    ("true", "%check\necho fine", True, UnitTests("passed", "%check ended without an error")),
    ("true", "%check\nexit 0", True, UnitTests("none", "%check ran nothing")),
    ("true", "%check\n%{?nothing}", True, UnitTests("none", "%check ran nothing")),
    ("true", "", True, UnitTests("none", "the spec file has no %check")),
    ("false", "%check\ntrue", False, UnitTests("unknown", "the build did not get as far as %check")),
    (
        "true",
        "%check\necho broken; exit 3",
        False,
        UnitTests("failed", "%check ended with an error", "+ echo broken\nbroken\n+ exit 3"),
    ),
    ("echo 'Executing(%%check): /bin/sh'; false", "%check\ntrue", False, None),
]


@pytest.mark.parametrize(("build", "check", "built", "expected"), REAL)
def test_what_rpmbuild_writes_is_understood(
    build: str, check: str, built: bool, expected: UnitTests | None, tmp_path: Path
) -> None:
    (tmp_path / "tiny.spec").write_text(SPEC.format(build=build, check=check))
    words = ["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}", "--define", "_build_name_fmt x.rpm"]
    said = run([*words, tmp_path / "tiny.spec"], timeout=60, allowed=(0, 1))
    assert (said.returncode == 0) is built
    found = unit_tests(said.output.splitlines(keepends=True), built=built)
    if expected is None:  # the build's own output looks like %check: it did not fail there all the same
        assert found.status == "unknown"
        return
    tail = [line for line in found.tail.splitlines() if not line.startswith(("+ umask", "+ cd"))]
    assert (found.status, found.evidence, "\n".join(tail)) == (expected.status, expected.evidence, expected.tail)


BEGIN = "Executing(%check): /bin/sh -e /var/tmp/rpm-tmp.DfpZ5b\n+ umask 022\n+ cd /builddir/build/BUILD/x-1\n"
END = "+ RPM_EC=0\n++ jobs -p\n+ exit 0\nProcessing files: x-1-1.fc44.x86_64\nWrote: /builddir/build/RPMS/x-1.rpm\n"
FAILED = (
    "error: Bad exit status from /var/tmp/rpm-tmp.DfpZ5b (%check)\n\nRPM build errors:\n"
    "    Bad exit status from /var/tmp/rpm-tmp.DfpZ5b (%check)\nChild return code was: 1\n"
)

# the end of what a test runner prints, the sentence, and the seconds
RUNNERS: list[tuple[str, str, float | None]] = [
    (
        "ok\nAll tests successful.\nFiles=6, Tests=113,  6 wallclock secs ( 0.07 usr  0.01 sys +  0.77 cusr)\n"
        "Result: PASS\n",
        "Files=6, Tests=113",
        6.0,
    ),
    (
        "tests/test_a.py ....s    [100%]\n======== 4 passed, 1 skipped in 0.31s ========\n",
        "4 passed, 1 skipped",
        0.31,
    ),
    ("=== 1 failed, 30 passed, 2 warnings in 65.03s (0:01:05) ===\n", "1 failed, 30 passed, 2 warnings", 65.03),
    ("......\n" + "-" * 70 + "\nRan 6 tests in 0.004s\n\nOK\n", "Ran 6 tests", 0.004),
    (
        "100% tests passed, 0 tests failed out of 12\n\nTotal Test time (real) =   3.42 sec\n",
        "100% tests passed, 0 tests failed out of 12",
        3.42,
    ),
    (
        "Testsuite summary for x 1\n====\n# TOTAL: 12\n# PASS:  10\n# SKIP:  1\n# XFAIL: 0\n# FAIL:  1\n# XPASS: 0\n"
        "# ERROR: 0\n====\n",
        "# TOTAL: 12, # PASS: 10, # SKIP: 1, # XFAIL: 0, # FAIL: 1, # XPASS: 0, # ERROR: 0",
        None,
    ),
    (
        "Ok:                 21  \nExpected Fail:      0   \nFail:               0   \nSkipped:            2   \n",
        "Ok: 21, Expected Fail: 0, Fail: 0, Skipped: 2",
        None,
    ),
    (
        "test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.50s\n"
        "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.25s\n",
        "test result: ok. 5 passed; 0 failed, test result: ok. 2 passed; 0 failed",
        0.75,
    ),
    ("ok  \tgithub.com/a/b\t1.500s\nok  \tgithub.com/a/b/c\t0.250s\n", "", 1.75),
    ("nothing that is known\n", "%check ended without an error", None),
    ("Ran 3 tests in 1.0s\n== 3 passed in 2.0s ==\n", "3 passed", 2.0),
    ("\x1b[31m== 3 passed in 2.0s ==\x1b[0m\n", "%check ended without an error", None),
]


@pytest.mark.parametrize(("said", "evidence", "seconds"), RUNNERS)
def test_a_runners_own_summary_is_the_evidence(said: str, evidence: str, seconds: float | None) -> None:
    log = f"+ make check\n{said}"
    found = unit_tests((BEGIN + log + END).splitlines(keepends=True), built=True)
    assert (found.status, found.tail) == ("passed", "")
    assert found.seconds == seconds
    assert found.evidence == (evidence or "ok github.com/a/b, ok github.com/a/b/c")


def test_failed_tests_show_the_end_of_what_they_said() -> None:
    log = BEGIN + "".join(f"+ true {number}\n" for number in range(100)) + "FAIL: one\x1b[0m\n== 1 failed in 2s ==\n"
    found = unit_tests((log + FAILED).splitlines(keepends=True), built=False)
    assert (found.status, found.evidence, found.seconds) == ("failed", "1 failed", 2.0)
    assert found.tail.splitlines()[-2].startswith("FAIL: one")
    assert "\x1b" not in found.tail
    assert "+ true 1\n" not in found.tail
    assert "RPM build errors" not in found.tail


# the log, whether it was built, the status
DOUBTFUL = [
    (BEGIN + "+ make check\nkilled", False, "unknown"),
    (BEGIN + "+ make check\n" + END, False, "unknown"),  # %files failed after it
    (BEGIN + "+ make check\n" + FAILED + END, True, "passed"),  # a test that prints what rpmbuild would
    ("", True, "none"),
    ("", False, "unknown"),
    (BEGIN + "+ CFLAGS='-O2 -g'\n+ export CFLAGS\n+ cd x\n" + END, True, "none"),
    ("Executing(%check): x\n" * 3 + "\u2028" + END, True, "passed"),
]


@pytest.mark.parametrize(("log", "built", "status"), DOUBTFUL)
def test_whether_it_was_built_decides_in_doubt(log: str, built: bool, status: str) -> None:
    assert unit_tests(log.split("\n"), built=built).status == status


def test_a_long_log_takes_little_room() -> None:
    found = unit_tests((f"{BEGIN if number == 0 else 'x' * 10_000}" for number in range(20_000)), built=False)
    assert len(found.tail) < 20_000
