"""Which packages of a branch are tested again though nobody pushed: the choice, and when each run begins.

Pure: tasks.operations.retest asks dist-git and the ledger, this module decides: a dry run says what a real one does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DAY = 86400.0
#: What the last run of a package's branch ended with; ``untested`` when there was none.
LastVerdict = Literal["SUCCESS", "UNSTABLE", "FAILURE", "ABORTED", "untested"]
_PATTERN = frozenset("*?[")


class RetestFilter(BaseModel):
    """What to test again; everything that is named must hold. Strict: it comes from a schedule or a form."""

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
class Ended:
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
    """A package: its latest commit (empty, with a ``problem``, when there is none), and what is known of it.

    ``branch`` is what its repository calls the branch: Rawhide has had three names.
    """

    repo: str
    rev: str
    branch: str = "rawhide"
    problem: str = ""
    facts: CommitFacts | None = None
    last: Ended | None = None


@dataclass(frozen=True)
class Choice:
    """What becomes of a package: when its run begins, or None and the reason why there is none."""

    repo: str
    rev: str
    branch: str
    at: datetime | None
    reason: str

    def row(self) -> dict[str, str]:
        """The choice as a line of the table that people see."""
        when = self.at.strftime("%Y-%m-%d %H:%M:%S") if self.at else ""
        return {"package": self.repo, "commit": self.rev[:10], "starts (UTC)": when, "why": self.reason}


def named(wish: RetestFilter, known: Collection[str]) -> list[str]:
    """The packages that a wish is about, sorted: what it names, and what of ``known`` its patterns match."""
    names = {one for one in wish.packages if not _PATTERN & set(one)}
    patterns = [one for one in wish.packages if _PATTERN & set(one)]
    names |= {repo for repo in known if _any(repo, patterns)}
    return sorted(repo for repo in names if not _any(repo, wish.exclude))


def choose(wish: RetestFilter, candidates: Sequence[Candidate], start: datetime) -> list[Choice]:
    """What becomes of each candidate when the window opens at ``start``: those with a run first, in its order."""
    judged = [(one, _objection(wish, one, start.timestamp())) for one in candidates]
    chosen = [
        Choice(one.repo, one.rev, one.branch, start + offset_of(one.repo, wish.window_minutes), _why(one))
        for one, objection in judged
        if not objection
    ]
    chosen.sort(key=lambda choice: (choice.at, choice.repo))
    late = [
        Choice(one.repo, one.rev, one.branch, None, f"{wish.most} runs are enough for once")
        for one in chosen[wish.most :]
    ]
    skipped = [Choice(one.repo, one.rev, one.branch, None, objection) for one, objection in judged if objection]
    return [*chosen[: wish.most], *late, *skipped]


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
    return [one.row() for one in choices]


def sentence_of(choices: Sequence[Choice]) -> str:
    """The plan in a line."""
    started = [one for one in choices if one.at]
    span = f", from {started[0].row()['starts (UTC)']} to {started[-1].row()['starts (UTC)']} UTC" if started else ""
    return f"{len(started)} of {len(choices)} packages are tested again{span}"


def _objection(wish: RetestFilter, one: Candidate, now: float) -> str:
    return one.problem or _of_commit(wish, one.facts) or _of_verdict(wish, one, now)


def _of_commit(wish: RetestFilter, facts: CommitFacts | None) -> str:
    if not wish.needs_commits:
        return ""
    if facts is None:
        return "its latest commit could not be looked at"
    if wish.has_tests is not None and facts.has_tests != wish.has_tests:
        return "it has tests" if facts.has_tests else "it has no tests"
    if wish.changed_since is not None and facts.committed < _utc(wish.changed_since).timestamp():
        return f"not changed since {_utc(wish.changed_since):%Y-%m-%d}: {_day(facts.committed)}"
    return ""


def _of_verdict(wish: RetestFilter, one: Candidate, now: float) -> str:
    last = one.last
    said = last.status if last and last.at is not None else "untested" if last is None else "running"
    if said == "running":
        # A commit that is being tested gets its verdict; a newer one is the business of its own push.
        return "a run of it is under way"
    if wish.last_verdict and said not in wish.last_verdict:
        return f"its last verdict is {said}"
    # What was broken off has no verdict.
    if last and last.at is not None and last.rev == one.rev and said != "ABORTED":
        age = (now - last.at) / DAY
        if age < wish.fresh_days:
            return f"{said} on this commit, {age:.1f} days ago"
    return ""


def _why(one: Candidate) -> str:
    if one.last is None or one.last.at is None:
        return "never tested"
    on = "this commit" if one.last.rev == one.rev else one.last.rev[:10]
    return f"last: {one.last.status} on {on}, {_day(one.last.at)}"


def _any(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _day(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"
