"""What a worker's doctor reports, and the rules by which what was seen is called fit or not.

Pure: distgate.doctor.checks runs the checks, this module judges, distgate.cli.doctor prints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from distgate.text import format_size, printable

#: Seconds by which two clocks may differ: leases of runs and of concurrency slots last tens of seconds.
CLOCK_LIMIT = 5.0
#: An HTTP date is cut to the second, and servers renew it once a second: it is up to this many seconds old.
_DATE_AGE = 2.0


@dataclass(frozen=True)
class CheckResult:
    """What one check found: whether a worker can work with that, a text, and what to do about it."""

    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True)
class Finding:
    """A result under the name of its check; ``detail`` and ``hint`` are single lines."""

    name: str
    ok: bool
    detail: str
    hint: str = ""

    @classmethod
    def of(cls, name: str, result: CheckResult) -> Finding:
        """``result`` under a name, without control characters of a terminal."""
        return cls(name, result.ok, printable(result.detail, newlines=False), printable(result.hint, newlines=False))


@dataclass(frozen=True)
class Report:
    """The findings, in the order of the checks."""

    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.ok)

    @property
    def ok(self) -> bool:
        """Whether this worker may take runs."""
        return not self.failed

    def as_json(self) -> dict[str, Any]:
        """``ok`` and ``checks``, each with name, ok, detail and hint."""
        return {"ok": self.ok, "checks": [asdict(finding) for finding in self.findings]}

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, state and detail of each check; its hint is a row of its own."""
        rows = []
        for finding in self.findings:
            rows.append((finding.name, "ok" if finding.ok else "FAILED", finding.detail))
            if finding.hint:
                rows.append(("", "", f"hint: {finding.hint}"))
        return rows

    def sentence(self) -> str:
        """The whole report in a line."""
        if self.ok:
            return f"all {len(self.findings)} checks passed: this worker can take runs"
        names = ", ".join(finding.name for finding in self.failed)
        return f"{len(self.failed)} of {len(self.findings)} checks failed: {names}"


@dataclass(frozen=True)
class Space:
    """A directory that must have free space: ``free`` is in bytes for our user, None when it cannot be read."""

    purpose: str
    path: Path
    free: int | None
    writable: bool
    problem: str = ""


@dataclass(frozen=True)
class Reading:
    """Another clock, read over HTTP; times are seconds of the epoch, ``date`` by its clock, the others by ours."""

    server: str
    sent: float
    received: float
    date: float

    @property
    def ahead(self) -> float:
        """Seconds by which that clock seems to be ahead of ours."""
        return self.date + _DATE_AGE / 2 - (self.sent + self.received) / 2

    @property
    def certain(self) -> float:
        """Seconds by which the clocks differ at least, whatever the way there and back took."""
        return max(0.0, abs(self.ahead) - _DATE_AGE / 2 - (self.received - self.sent) / 2)


@dataclass(frozen=True)
class Confinement:
    """What a program in the sandbox found of itself: ``reached`` says that it got out to a port of this host."""

    uid: int
    capabilities: int
    routes: int
    reached: bool


def judge_accelerator(name: str, reason: str, scale: float) -> CheckResult:
    """Emulation passes, and the result names it."""
    if name == "kvm":
        return CheckResult(True, reason)
    hint = "a host with KVM is meant for production; allow the worker's user /dev/kvm where there is one"
    return CheckResult(True, f"emulation only, guests are given {scale:g} times the time: {reason}", hint)


def judge_disk(spaces: Sequence[Space], limit: int) -> CheckResult:
    """Every directory must be writable and have ``limit`` bytes free."""
    troubles = [trouble for space in spaces if (trouble := _disk_trouble(space, limit))]
    if troubles:
        full = any(space.writable for space in spaces if _disk_trouble(space, limit))
        hint = "free or add space, `distgate images prune` shrinks the store; --free names another limit"
        hint = hint if full else "look at its owner and mode, and at how it is mounted; or name another directory"
        return CheckResult(False, "; ".join(troubles), hint)
    return CheckResult(
        True,
        "; ".join(f"{format_size(space.free or 0)} free for {space.purpose} in {space.path}" for space in spaces),
    )


def _disk_trouble(space: Space, limit: int) -> str:
    where = f"{space.purpose} in {space.path}"
    if space.free is None:
        return f"{where}: {space.problem}"
    if not space.writable:
        return f"{where}: not writable"
    return f"{where}: {format_size(space.free)} free of {format_size(limit)} needed" if space.free < limit else ""


def judge_compose(drivers: Sequence[tuple[str, bool, str]], chosen: str) -> CheckResult:
    """``drivers`` lists name, whether it is usable, and why not; auto needs any of them, a name that one."""
    usable = [name for name, fit, _ in drivers if fit]
    refused = "; ".join(f"{name}: {why}" for name, fit, why in drivers if not fit)
    if (chosen == "auto" and usable) or chosen in usable:
        return CheckResult(True, f"usable: {', '.join(usable)}" + (f" (not {refused})" if refused else ""))
    if chosen == "auto":
        return CheckResult(
            False, f"no image can be mounted here: {refused}", "docs/compose.md says what each driver needs"
        )
    return CheckResult(False, f"{chosen} is not usable: {refused}", "DISTGATE_COMPOSE_DRIVER=auto takes any that is")


def judge_sandbox(confinement: Confinement) -> CheckResult:
    """A program of strangers has an unprivileged user, no capabilities and no network."""
    wrong = []
    if confinement.uid == 0 or confinement.capabilities:
        wrong.append(f"it runs as user {confinement.uid} with capabilities {confinement.capabilities:#x}")
    if confinement.routes or confinement.reached:
        wrong.append("it reaches a network" if confinement.routes else "it reaches ports of this host")
    if wrong:
        return CheckResult(False, f"a program is not confined: {'; '.join(wrong)}", "docs/isolation.md")
    return CheckResult(True, f"a program ran as user {confinement.uid}, without capabilities and network")


def judge_bases(served: Sequence[str], watched: Sequence[str], unreadable: int) -> CheckResult:
    """``served`` are the branches with a qualified base image, ``watched`` patterns: a missing one is only
    reported, a run builds it."""
    has = ", ".join(sorted(set(served))) or "no branch"
    missing = [pattern for pattern in watched if not any(fnmatchcase(branch, pattern) for branch in served)]
    detail = f"a qualified base image for {has}"
    detail += f"; none for {', '.join(missing)}" if missing else ""
    detail += f"; {unreadable} unreadable" if unreadable else ""
    hints = ["`distgate images refresh --branch BRANCH` makes a base ahead of the first run"] if missing else []
    hints += ["`distgate images prune` removes what is unreadable"] if unreadable else []
    return CheckResult(True, detail, "; ".join(hints))


def judge_prefect(server: str, client: str) -> CheckResult:
    """A server serves clients of its own major version that are not newer than itself, patch releases aside."""
    server_release, client_release = _release(server), _release(client)
    if not server_release:
        return CheckResult(False, f"the server's version is no version: {server[:80]!r}", "PREFECT_API_URL names it")
    if server_release[0] != client_release[0] or server_release < client_release:
        return CheckResult(
            False,
            f"the server has Prefect {server}, this worker {client}",
            "a server may be newer than its workers, never older; upgrade it first",
        )
    return CheckResult(True, f"Prefect {server} answers, this worker has {client}")


def _release(version: str) -> tuple[int, ...]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return tuple(int(part) for part in match.groups()) if match else ()


def judge_clock(readings: Sequence[Reading], silent: Mapping[str, str], limit: float = CLOCK_LIMIT) -> CheckResult:
    """Our clock beside those of ``readings``; ``silent`` says why others could not be read."""
    unread = "; ".join(f"{server} was not asked: {why}" for server, why in silent.items())
    if not readings:
        return CheckResult(False, f"no clock to compare with: {unread}", "see the checks prefect and koji")
    wrong = [reading for reading in readings if reading.certain > limit]
    if wrong:
        differences = "; ".join(f"{reading.server} is {_apart(reading)}" for reading in wrong)
        hint = f"more than {limit:g} s apart: run chronyd on both hosts"
        return CheckResult(False, differences, hint)
    names = ", ".join(reading.server for reading in readings)
    return CheckResult(True, f"within {limit:g} s of {names}" + (f"; {unread}" if unread else ""))


def _apart(reading: Reading) -> str:
    return f"{abs(reading.ahead):.0f} s {'ahead of' if reading.ahead > 0 else 'behind'} this host"
