"""The latest commits of many repositories: their hashes and facts about their files, read in parallel."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from distgate.builds.checkout import checkout, git
from distgate.changes.retest import CommitFacts
from distgate.errors import ConfigurationError, DistgateError
from distgate.records import read_record, write_record
from distgate.testing.discovery import discover

#: git's processes at the same time; they wait for the server most of the time.
AT_ONCE = 16
K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class Head:
    """The latest commit of a branch; without one, ``problem`` says why."""

    rev: str
    branch: str = ""
    problem: str = ""


def heads(addresses: Mapping[str, str], branches: Sequence[str], *, timeout: float = 60.0) -> dict[str, Head]:
    """The head of the first of ``branches`` that each repository has, under the names of ``addresses``.

    ``timeout`` is in seconds for one repository. Never raises for a repository: its head has the problem.
    """
    return _in_parallel(addresses, lambda name: _head(addresses[name], branches, timeout))


class CommitFactsCache:
    """Facts about commits in the JSON file ``path``: a commit never changes. An unreadable file is begun anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._by_rev = _read(path)

    def facts(self, commits: Mapping[str, tuple[str, str]], *, timeout: float = 120.0) -> dict[str, CommitFacts]:
        """The facts of each of ``commits`` (address and hash by name). Those that cannot be fetched are missing;
        the next call tries them again."""
        new = {name: commit for name, commit in commits.items() if commit[1] not in self._by_rev}
        fetched = _in_parallel(new, lambda name: _facts(*new[name], timeout))
        self._store({new[name][1]: facts for name, facts in fetched.items() if facts is not None})
        return {name: self._by_rev[rev] for name, (_, rev) in commits.items() if rev in self._by_rev}

    def _store(self, facts_by_rev: Mapping[str, CommitFacts]) -> None:
        if not facts_by_rev:
            return
        with self._lock:
            self._by_rev |= facts_by_rev
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_record(self._path, self._by_rev)


def _read(path: Path) -> dict[str, CommitFacts]:
    try:
        return read_record(path, dict[str, CommitFacts])
    except (OSError, ConfigurationError):
        return {}


def _head(address: str, branches: Sequence[str], timeout: float) -> Head:
    try:
        listing = git(["ls-remote", "--heads", "--", address, *(f"refs/heads/{name}" for name in branches)], timeout)
    except DistgateError as error:
        last = error.evidence.strip().splitlines()[-1:]
        return Head("", problem=": ".join(["its repository cannot be read", *last]))
    revs = {
        ref.removeprefix("refs/heads/"): rev for rev, _, ref in (line.partition("\t") for line in listing.split("\n"))
    }
    for name in branches:
        if name in revs:
            return Head(revs[name], name)
    return Head("", problem=f"it has no branch {' or '.join(branches)}")


def _facts(address: str, rev: str, timeout: float) -> CommitFacts | None:
    try:
        with tempfile.TemporaryDirectory(prefix="distgate-look-") as scratch:
            tree = checkout(address, rev, Path(scratch) / "tree", timeout=timeout)
            committed = git(["-C", tree, "log", "-1", "--format=%ct"], timeout)
            return CommitFacts(bool(discover(tree).kind), float(committed))
    except (DistgateError, OSError, ValueError):
        return None


def _in_parallel(names: Iterable[K], query: Callable[[K], V]) -> dict[K, V]:
    keys = list(names)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="git") as pool:
        return dict(zip(keys, pool.map(query, keys), strict=True))
