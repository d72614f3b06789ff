"""The directory of a branch's trees: its repositories, its lock and leases, and what killed processes left there.

Two files in it outlive every process: the versions that were given out (a number behind the release's prefix, which
no two trees share), and the tree at the head whose tests have not ended.
"""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.files import remove_tree
from distgate.locks import GUARD, LockOwner, exclusive, leases, try_lock
from distgate.locks import lease as hold
from distgate.ostree.repository import OstreeRepository, full
from distgate.ostree.tested_packages import TestedPackages
from distgate.records import read_record, write_record
from distgate.steps import Progress
from distgate.waiting import Deadline, wait_for

#: Where a compose works; it begins with a dot, and what a killed one left is known by it.
_SCRATCH = ".composing-"


@dataclass(frozen=True)
class BranchPlace:
    """The places below ``directory``, whose name is the branch's.

    ``holder`` says for whom it is worked on; others are waited for ``patience`` seconds at most.
    """

    directory: Path
    holder: str
    patience: float

    @property
    def build(self) -> OstreeRepository:
        """Where commits are made; of mode bare."""
        return OstreeRepository(self.directory / "build")

    @property
    def served(self) -> OstreeRepository:
        """What clients read; of mode archive."""
        return OstreeRepository(self.directory / "ostree")

    @property
    def tested(self) -> TestedPackages:
        """The packages that passed on this branch."""
        return TestedPackages(self.directory / "packages")

    @property
    def versions(self) -> TreeVersions:
        """The versions that were given out."""
        return TreeVersions(self.directory / "versions.json")

    @property
    def unaccepted(self) -> PendingTreeFile:
        """The tree whose tests have not ended."""
        return PendingTreeFile(self.directory / "unaccepted.json")

    @property
    def unfinished(self) -> Path:
        """A file that is there while a compose goes on, and after one that did not end well."""
        return self.directory / "unfinished"

    def create(self) -> None:
        """Make the repositories unless they are there. Raises InfrastructureError."""
        self.build.create("bare")
        self.served.create("archive")
        self._leases.mkdir(exist_ok=True)
        self.tested.create()

    def clean(self) -> None:
        """Remove what killed processes left; to be called by whoever has the lock."""
        for workspace in self.directory.glob(f"{_SCRATCH}*"):
            remove_tree(workspace, ignore_errors=True)
        self.tested.remove_leftovers()
        self.served.remove_leftovers()
        self.build.remove_leftovers()
        self.build.keep_only_refs()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A scratch directory for the block, on the disk of the repositories."""
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=self.directory) as name:
            yield Path(name)

    # -- who works here ---------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, progress: Progress = lambda _line: None) -> Iterator[None]:
        """Alone with the branch's repositories. A full disk is said to be one, whoever met it."""

        def tell(holder: LockOwner | None) -> None:
            progress(f"waiting for {holder or 'somebody'}, who works on the trees of {self.directory.name}")

        condition = f"the lock of the trees of {self.directory.name}"
        with self._blamed():
            self.directory.mkdir(parents=True, exist_ok=True)
            with exclusive(self._lock, self.holder, condition, self.patience, tell):
                yield

    @contextmanager
    def locked_now(self) -> Iterator[bool]:
        """The same without waiting: tells the block whether it is alone."""
        with self._blamed():
            stream = try_lock(self._lock, self.holder)
            try:
                yield stream is not None
            finally:
                if stream is not None:
                    stream.close()

    @contextmanager
    def turn(self, progress: Progress) -> Iterator[None]:
        """Alone with the branch's repositories, and nobody tests the tree at the head any more."""
        end = Deadline(self.patience)
        while True:
            # Without the lock, which whoever tests needs to accept the tree.
            ended = self._tests_told(progress)
            wait_for("the end of the tests on the tree before", ended, end, evidence=self._who_tests, interval=0.1)
            with self.locked(progress):
                if not self.testers():
                    yield
                    return

    @contextmanager
    def lease(self, rev: str, holder: str) -> Iterator[str]:
        """Keep a published commit from being pruned, and from being withdrawn by others, for the block.

        Raises InfrastructureError when it is not there.
        """
        lease = self.lease_of(rev)
        lease.mkdir(parents=True, exist_ok=True)
        (lease / GUARD).touch()
        with hold(lease, holder):
            if not self.served.holds(rev):
                raise InfrastructureError(f"{self.served.path} has no commit {rev}", hint="it was pruned")
            yield rev

    def lease_of(self, rev: str) -> Path:
        """The directory of the leases of a commit."""
        return self._leases / rev

    def testers(self) -> tuple[LockOwner, ...]:
        """Who leases the tree at the head, while it is not accepted."""
        unaccepted = self.unaccepted.read()
        return leases(self.lease_of(unaccepted.rev)) if unaccepted else ()

    def _tests_told(self, progress: Progress) -> Callable[[], bool]:
        reported: set[LockOwner] = set()

        def ended() -> bool:
            holders = self.testers()
            if who := ", ".join(str(holder) for holder in holders if holder not in reported):
                progress(f"waiting for {who}, who tests the tree before")
            reported.update(holders)
            return not holders

        return ended

    def _who_tests(self) -> str:
        return ", ".join(map(str, self.testers()))

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(self.directory, str(error)) from error
            raise InfrastructureError(f"the trees in {self.directory} cannot be worked on: {error}") from error

    @property
    def _leases(self) -> Path:
        return self.directory / "leases"

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"


class TreeVersions:
    """Remembers in the file ``path`` the last number that was published under each prefix."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def next(self, prefix: str, versions: Iterable[str]) -> str:
        """A version that is after every published one, and after all of ``versions``."""
        return next_version(prefix, [f"{prefix}.{self._read().get(prefix, 0)}", *versions])

    def publish(self, version: str) -> None:
        """Note that a tree with this version is about to be published: the version is never given out again."""
        prefix, _, number = version.rpartition(".")
        write_record(self._path, self._read() | {prefix: int(number)})

    def remembers(self) -> bool:
        """Whether there is such a file; trees that are older than it have only their own versions."""
        return self._path.exists()

    def _read(self) -> dict[str, int]:
        try:
            return read_record(self._path, dict[str, int])
        except FileNotFoundError:
            return {}


def next_version(prefix: str, before: Iterable[str]) -> str:
    """The version after all of ``before``: the highest number that follows ``prefix``, and one more."""
    matches = (re.fullmatch(rf"{re.escape(prefix)}\.(\d+)", version) for version in before)
    return f"{prefix}.{max((int(match[1]) for match in matches if match), default=0) + 1}"


@dataclass(frozen=True)
class PendingTree:
    """The tree whose tests have not ended: its commit, where the ref was before, and for whom it was made (a run)."""

    rev: str
    parent: str | None
    holder: str = ""


class PendingTreeFile:
    """The note in the file ``path``; it is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> PendingTree | None:
        """What it says; None when every tree is accepted or withdrawn."""
        try:
            return read_record(self._path, PendingTree)
        except FileNotFoundError:
            return None

    def write(self, tree: PendingTree) -> None:
        """Note a tree in the place of any other."""
        write_record(self._path, tree)

    def remove(self) -> None:
        """Forget it: it was accepted or withdrawn."""
        self._path.unlink(missing_ok=True)
