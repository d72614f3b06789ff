"""The unit tests of a build, from its log's part about %check, which is where spec files run them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from distgate.text import printable

Status = Literal["passed", "failed", "none", "unknown"]

_BEGIN = re.compile(r"Executing\(%check\): ")
_END = re.compile(r"Executing\(|Processing files: |error: Bad exit status from \S+ \(%check\)")
_FAILED = re.compile(r"error: Bad exit status from \S+ \(%check\)")
#: Lines that rpm's own beginning and end of every script leave in its trace: they are no tests.
_TRACE = re.compile(r"\++ ")
_OWN_TRACE = re.compile(
    r"\++ (umask|cd|export|unset|RPM_EC=|jobs -p|exit 0|:$|[A-Z_]+=|rm -rf \S*(BUILDROOT|SPECPARTS))"
)
#: The summaries of test runners, the most precise first; a group ``seconds`` is how long it took.
_SUMMARIES = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        r"=+ (?P<summary>\d+ (?:passed|failed|error|skipped).*?)(?: in (?P<seconds>[\d.]+)s.*)? =+$",  # pytest
        r"(?P<summary>\d+% tests passed, \d+ tests failed out of \d+)",  # ctest
        r"(?P<summary>Files=\d+, Tests=\d+), +(?P<seconds>\d+) wallclock secs",  # prove
        r"(?P<summary>Ran \d+ tests?) in (?P<seconds>[\d.]+)s",  # unittest
        r"(?P<summary>test result: (?:ok|FAILED)\. \d+ passed; \d+ failed)(?:.*in (?P<seconds>[\d.]+)s)?",  # cargo
        r"(?P<summary># TOTAL: +\d+)$",  # automake
        r"(?P<summary>All \d+ tests (?:passed|behaved as expected).*)",  # automake before that
        r"(?P<summary>Ok: +\d+)\s*$",  # meson
        r"(?P<summary>(?:ok|FAIL) *\t\S+)\t(?P<seconds>[\d.]+)s",  # go
    )
)
_CTEST_TIME = re.compile(r"Total Test time \(real\) = +(?P<seconds>[\d.]+) sec")
_FOLLOWING = re.compile(
    r"(?:# (?:PASS|SKIP|XFAIL|FAIL|XPASS|ERROR): +\d+|(?:Expected Fail|Fail|Skipped|Timeout): +\d+)\s*$"
)
_LINE = 300
_TAIL = 60


@dataclass(frozen=True)
class UnitTests:
    """How a build's unit tests ended.

    ``failed`` ended the build; ``none`` is a spec file without %check, or with an empty one; ``unknown`` a build that
    did not get that far. ``evidence`` is a sentence, ``tail`` the end of %check's output when it failed, ``seconds``
    how long the tests took if their runner tells.
    """

    status: Status
    evidence: str
    tail: str = ""
    seconds: float | None = None


#: Of a build without a log.
UNKNOWN = UnitTests("unknown", "there is no build.log")


def unit_tests(log: Iterable[str], *, built: bool) -> UnitTests:
    """Read the lines of a ``build.log``, whether it ``built`` the package or not; memory is bounded."""
    check = _Check()
    for line in log:
        check.see(line.rstrip("\n"))
    if check.failed and not built:
        return UnitTests("failed", check.summary or "%check ended with an error", check.tail, check.seconds)
    if built:
        return _of_built(check)
    if check.begun:
        return UnitTests("unknown", "the build ended while or after %check ran, through something else", check.tail)
    return UnitTests("unknown", "the build did not get as far as %check")


def _of_built(check: _Check) -> UnitTests:
    if not check.begun:
        return UnitTests("none", "the spec file has no %check")
    if not check.ran:
        return UnitTests("none", "%check ran nothing")
    return UnitTests("passed", check.summary or "%check ended without an error", seconds=check.seconds)


class _Check:
    """The part of a build's log that %check wrote."""

    def __init__(self) -> None:
        self.begun = self.failed = self.ran = False
        self._inside = False
        self._summaries: dict[int, list[str]] = {}
        self._seconds: dict[int, float] = {}
        self._own_seconds = 0.0
        self._tail: deque[str] = deque(maxlen=_TAIL)

    def see(self, line: str) -> None:
        if _BEGIN.match(line):
            self.begun = self._inside = True
        elif _END.match(line):
            self.failed = self.failed or _FAILED.match(line) is not None
            self._inside = False
        elif self._inside:
            self._tail.append(line[:_LINE])
            self.ran = self.ran or not _OWN_TRACE.match(line)
            if not _TRACE.match(line):
                self._read_summary(line[:_LINE])

    def _read_summary(self, line: str) -> None:
        for rank, pattern in enumerate(_SUMMARIES):
            match = pattern.search(line)
            if match:
                self._summaries.setdefault(rank, []).append(match["summary"])
                seconds = match.groupdict().get("seconds")
                self._seconds[rank] = self._seconds.get(rank, 0.0) + float(seconds or 0)
                return
        following = _FOLLOWING.match(line)
        if following and self._summaries:
            self._summaries[next(reversed(self._summaries))].append(following[0].strip())
        elif time := _CTEST_TIME.search(line):
            self._own_seconds += float(time["seconds"])

    @property
    def summary(self) -> str:
        """How the tests' own runner summed up; the last five where there were many."""
        if not self._summaries:
            return ""
        summaries = [re.sub(r"\s+", " ", summary) for summary in self._summaries[min(self._summaries)]]
        more = f"... {len(summaries) - 5} more, " if len(summaries) > 8 else ""
        return printable(more + ", ".join(summaries[-5:] if more else summaries), newlines=False)

    @property
    def seconds(self) -> float | None:
        """How long the tests took, if the runner that is quoted tells."""
        seconds = self._seconds[min(self._seconds)] if self._seconds else 0.0
        return seconds + self._own_seconds or None

    @property
    def tail(self) -> str:
        return printable("\n".join(self._tail))
