"""Which packages of a branch are tested again without a push, and when each run begins.

Pure: tasks.operations.retest reads dist-git and the ledger, this module decides; a dry run says what a real one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DAY = 86400.0
#: What the last run of a package's branch ended with; ``untested`` when there was none.
LastVerdict = Literal["SUCCESS", "UNSTABLE", "FAILURE", "ABORTED", "untested"]
_WILDCARDS = frozenset("*?[")


class RetestFilter(BaseModel):
    """What to test again; every criterion must hold. Strict: it comes from a schedule or a form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    packages: tuple[str, ...] = Field(
        ("*",), min_length=1, description="Names, or shell patterns of packages that are known"
    )
    exclude: tuple[str, ...] = Field((), description="Names or shell patterns of packages that are left out")
    has_tests: bool | None = Field(None, description="Only packages with tests in dist-git (false: without)")
    changed_since: datetime | None = Field(None, description="Only packages whose latest commit is not older")
    last_verdict: tuple[LastVerdict, ...] = Field(
        (), description="Only packages whose last run ended like this; empty: whatever it was"
    )
    fresh_days: float = Field(7, ge=0, description="Days for which a verdict on the same commit is good enough")
    most: int = Field(1000, ge=1, le=10_000, description="Runs that are started at most")
    window_minutes: float = Field(360, ge=0, le=10_080, description="Minutes over which the runs are spread")

    @property
    def needs_commits(self) -> bool:
        """Whether the commits themselves must be looked at, not just their hashes."""
        return self.has_tests is not None or self.changed_since is not None


@dataclass(frozen=True)
class LastRun:
    """A package's last run: its commit, its status, and when it ended (None: it runs, else epoch seconds)."""

    rev: str
    status: str
    at: float | None


@dataclass(frozen=True)
class CommitFacts:
    """What a commit's files say: whether there are tests, and when it was committed, in seconds of the epoch."""

    has_tests: bool
    committed: float


@dataclass(frozen=True)
class Candidate:
    """A package: its latest commit (empty, with a ``problem``, when there is none), its facts and its last run.

    ``branch`` is what its repository calls the branch: Rawhide has had three names.
    """

    repo: str
    rev: str
    branch: str = "rawhide"
    problem: str = ""
    facts: CommitFacts | None = None
    last: LastRun | None = None


@dataclass(frozen=True)
class Choice:
    """The decision about a package: when its run begins, or None and the reason why there is none."""

    repo: str
    rev: str
    branch: str
    at: datetime | None
    reason: str

    def row(self) -> dict[str, str]:
        """The choice as a line of the table that people see."""
        when = self.at.strftime("%Y-%m-%d %H:%M:%S") if self.at else ""
        return {"package": self.repo, "commit": self.rev[:10], "starts (UTC)": when, "why": self.reason}


def packages_of(criteria: RetestFilter, known_packages: Collection[str]) -> list[str]:
    """The packages to look at, sorted: those that are named, and what of ``known_packages`` a pattern matches."""
    names = {package for package in criteria.packages if not _WILDCARDS & set(package)}
    patterns = [package for package in criteria.packages if _WILDCARDS & set(package)]
    names |= {repo for repo in known_packages if _any(repo, patterns)}
    return sorted(repo for repo in names if not _any(repo, criteria.exclude))


def choose(criteria: RetestFilter, candidates: Sequence[Candidate], start: datetime) -> list[Choice]:
    """A choice for each candidate when the window opens at ``start``: those with a run first, in its order."""
    started, skipped = [], []
    for candidate in candidates:
        if objection := _objection(criteria, candidate, start.timestamp()):
            skipped.append(Choice(candidate.repo, candidate.rev, candidate.branch, None, objection))
        else:
            begin = start + offset_of(candidate.repo, criteria.window_minutes)
            started.append(Choice(candidate.repo, candidate.rev, candidate.branch, begin, _reason(candidate)))
    started.sort(key=lambda choice: (choice.at, choice.repo))
    surplus = f"{criteria.most} runs are enough for once"
    dropped = [replace(choice, at=None, reason=surplus) for choice in started[criteria.most :]]
    return [*started[: criteria.most], *dropped, *skipped]


def offset_of(repo: str, window_minutes: float) -> timedelta:
    """How far into a window the run of a package begins: always the same for one name, evenly spread over many."""
    digest = hashlib.sha256(repo.encode()).digest()
    return timedelta(minutes=window_minutes * int.from_bytes(digest[:8], "big") / 2**64)


def window_key(choice: Choice, start: datetime, window_minutes: float) -> str:
    """What makes a run of one package, commit and window one run, however often the window is planned."""
    length = max(window_minutes * 60, 60.0)
    return (
        f"retest {choice.repo}@{choice.branch}#{choice.rev} window {int(start.timestamp() // length)} of {length:g} s"
    )


def rows_of(choices: Sequence[Choice]) -> list[dict[str, str]]:
    """The table of a plan."""
    return [choice.row() for choice in choices]


def sentence_of(choices: Sequence[Choice]) -> str:
    """The plan in a line."""
    started = [choice for choice in choices if choice.at]
    span = f", from {started[0].row()['starts (UTC)']} to {started[-1].row()['starts (UTC)']} UTC" if started else ""
    return f"{len(started)} of {len(choices)} packages are tested again{span}"


def _objection(criteria: RetestFilter, candidate: Candidate, now: float) -> str:
    return candidate.problem or _of_commit(criteria, candidate.facts) or _of_verdict(criteria, candidate, now)


def _of_commit(criteria: RetestFilter, facts: CommitFacts | None) -> str:
    if not criteria.needs_commits:
        return ""
    if facts is None:
        return "its latest commit could not be looked at"
    if criteria.has_tests is not None and facts.has_tests != criteria.has_tests:
        return "it has tests" if facts.has_tests else "it has no tests"
    if criteria.changed_since is not None and facts.committed < _utc(criteria.changed_since).timestamp():
        return f"not changed since {_utc(criteria.changed_since):%Y-%m-%d}: {_day(facts.committed)}"
    return ""


def _of_verdict(criteria: RetestFilter, candidate: Candidate, now: float) -> str:
    last = candidate.last
    status = last.status if last and last.at is not None else "untested" if last is None else "running"
    if status == "running":
        # A commit that is being tested gets its verdict; a newer one is tested by its own push.
        return "a run of it is under way"
    if criteria.last_verdict and status not in criteria.last_verdict:
        return f"its last verdict is {status}"
    # An aborted run has no verdict.
    if last and last.at is not None and last.rev == candidate.rev and status != "ABORTED":
        age = (now - last.at) / DAY
        if age < criteria.fresh_days:
            return f"{status} on this commit, {age:.1f} days ago"
    return ""


def _reason(candidate: Candidate) -> str:
    if candidate.last is None or candidate.last.at is None:
        return "never tested"
    on = "this commit" if candidate.last.rev == candidate.rev else candidate.last.rev[:10]
    return f"last: {candidate.last.status} on {on}, {_day(candidate.last.at)}"


def _any(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
