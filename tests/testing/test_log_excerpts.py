"""The evidence line: what a packager reads first of a log that may have a thousand lines."""

from __future__ import annotations

import pytest

from distgate.testing.log_excerpts import LONGEST_LINE, MOST_LINES, failure_excerpt, key_line

COMPILER = """\
cc -O2 -include unixconv.h -c querycp.c -o querycp.o
<command-line>: fatal error: unixconv.h: No such file or directory
compilation terminated.
make: *** [Makefile:384: querycp.o] Error 1
error: Bad exit status from /var/tmp/rpm-tmp.XoF3b8 (%build)

RPM build errors:
    Bad exit status from /var/tmp/rpm-tmp.XoF3b8 (%build)
Child return code was: 1
"""
DNF = """\
base-0    25 MB/s | 152 kB     00:00
Error:
 Problem: conflicting requests
  - nothing provides libnosuchconv >= 2.0 needed by dos2unix-7.4.3-6.fc41.x86_64
(try to add '--skip-broken' to skip uninstallable packages)
"""
SPEC = "+ umask 022\nerror: File not found: /builddir/BUILDROOT/usr/bin/tiny\nRPM build errors:\n"
PYTHON = """\
Traceback (most recent call last):
  File "test_it.py", line 3, in <module>
    assert convert("x") == "y"
AssertionError: 'x' is not 'y'
"""
CONSOLE = "[    1.2] Run /init\n[    1.9] Kernel panic - not syncing: no working init found\n[    2.0] ---[ end\n"
LINKER = "ld: a.o: in function `f':\na.c:1: undefined reference to `gone'\ncollect2: error: ld returned 1\n"

CASES: list[tuple[str, str]] = [
    (COMPILER, "<command-line>: fatal error: unixconv.h: No such file or directory"),
    (DNF, "- nothing provides libnosuchconv >= 2.0 needed by dos2unix-7.4.3-6.fc41.x86_64"),
    (SPEC, "error: File not found: /builddir/BUILDROOT/usr/bin/tiny"),
    (PYTHON, "AssertionError: 'x' is not 'y'"),
    (CONSOLE, "[    1.9] Kernel panic - not syncing: no working init found"),
    (LINKER, "a.c:1: undefined reference to `gone'"),
    ("ok 1 - starts\nnot ok 2 - converts\n", "not ok 2 - converts"),
    ("it began\nthe disk could not be read\nit ended\n", "the disk could not be read"),
    ("it began\nit ended\n\n---\n", "it ended"),
    ("error: Bad exit status from /var/tmp/x (%build)\n", "error: Bad exit status from /var/tmp/x (%build)"),
    ("\x1b[31merror: red\x1b[0m\n", "error: red"),
    ("error: " + "x" * 999, ("error: " + "x" * 999)[: LONGEST_LINE - 3] + "..."),
    ("\n \n--\n", ""),
    ("", ""),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), CASES)
def test_the_evidence_is_the_line_that_names_the_reason(text: str, line: str) -> None:
    assert key_line(text) == line


LOG = """\
:: one
PASS one
:: two-a
cmp: EOF on two-a.txt
PASS two-a
:: two
cmp: EOF on out.txt after byte 10
FAIL two
:: three
FAIL three
"""
EXCERPTS: list[tuple[str, str, list[str]]] = [
    (LOG, "two", [*LOG.splitlines()[:8]]),
    (LOG, "three", LOG.splitlines()[2:]),
    (LOG, "four", LOG.splitlines()[2:]),
    ("not ok 1 - it starts\n1..1\n", "it starts", ["not ok 1 - it starts"]),
    (":: [   FAIL   ] :: RESULT: sanity\nbye\n", "sanity", [":: [   FAIL   ] :: RESULT: sanity"]),
    ("\x1b[2Ja\n\n" + "b" * 999, "x", ["a", "b" * (LONGEST_LINE - 3) + "..."]),
    ("", "x", []),
]


@pytest.mark.parametrize(("log", "test", "lines"), EXCERPTS)
def test_an_excerpt_ends_with_the_line_that_says_that_the_test_failed(log: str, test: str, lines: list[str]) -> None:
    assert failure_excerpt(log, test).splitlines() == lines
    assert len(lines) <= MOST_LINES
