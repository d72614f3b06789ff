"""The trees of one branch of Atomic Host: composed, published, accepted or withdrawn, and pruned.

A commit is made in no ref, copied to the repository that is served, gets its static delta and its signature there,
and only then do the ref and the summary move. Until somebody accepts it, a file says where the ref goes back to: a
tree that was neither accepted nor withdrawn, and that nobody leases any more, is withdrawn when the next one is
composed. Whatever is killed, and when: the ref is on a commit that is whole.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgate.drivers.base import ComposedTree, Progress, TreeComposer, TreeRequest
from distgate.drivers.base_store_locks import GUARD, Holder, exclusive, leases, unleased
from distgate.drivers.base_store_locks import lease as hold
from distgate.drivers.ostree_repository import OstreeRepository, SigningKey, full
from distgate.drivers.tested_packages import TestedPackages, source_name
from distgate.drivers.tree_database import installed_in_commit
from distgate.errors import InfrastructureError, PackageError
from distgate.package_diff import package_diff
from distgate.packages import Nevra
from distgate.steps import Steps
from distgate.treefile import Treefile
from distgate.waiting import Deadline, wait_for

DAY = 86400.0
#: Seconds that a compose waits for another of its branch, and for the end of the tests on the tree before.
PATIENCE = 4 * 3600.0
#: Where a compose works; it begins with a dot, and what a killed one left is known by it.
_ROOM = ".composing-"


@dataclass(frozen=True)
class Unaccepted:
    """The tree whose tests have not ended: its commit, and where the ref was before."""

    rev: str
    parent: str | None


@dataclass(frozen=True)
class BranchTrees:
    """The trees of a branch, below ``directory``, under ``ref``; what they are made of says ``treefile``.

    ``signing`` signs commits and summaries (None: they are not signed). Commits older than ``keep_days`` may be
    pruned. ``holder`` says for whom it works, such as a run's ID: others who wait read it.
    """

    directory: Path
    ref: str
    treefile: Treefile
    composer: TreeComposer
    signing: SigningKey | None = None
    keep_days: float = 14.0
    patience: float = PATIENCE
    holder: str = ""

    @property
    def published(self) -> Path:
        """The repository that is served: of mode archive, without a commit until the first tree."""
        return self.directory / "ostree"

    @property
    def tested(self) -> TestedPackages:
        """The packages that passed on this branch."""
        return TestedPackages(self.directory / "packages")

    def create(self) -> None:
        """Make the repositories unless they are there. Raises InfrastructureError."""
        with self._locked():
            self._create()

    def head(self) -> str | None:
        """The commit that the branch's ref points to; None before the first."""
        return OstreeRepository(self.published).head(self.ref)

    def unaccepted(self) -> Unaccepted | None:
        """The tree at the head as long as nobody accepted it."""
        try:
            facts = json.loads(self._unaccepted.read_text())
            return Unaccepted(facts["rev"], facts["parent"])
        except FileNotFoundError:
            return None

    def installed(self, rev: str) -> tuple[Nevra, ...]:
        """The packages of a published commit, from its own RPM database, sorted. Raises InfrastructureError."""
        return installed_in_commit(OstreeRepository(self.published), rev)

    def compose(
        self,
        repository: Path,
        packages: Sequence[Nevra],
        progress: Progress = lambda _line: None,
        keep: ExitStack | None = None,
    ) -> ComposedTree:
        """Compose and publish a tree with ``packages`` of the directory ``repository`` (with repodata) in it.

        Another compose of the branch is waited for, and so is whoever leases the tree before while it is not
        accepted; ``progress`` hears who. Of several packages those go in that the treefile or the tree before names,
        all when it is none of them. ``keep`` gets a lease on the new tree before anybody else has his turn: as long
        as it is open, no other compose takes the tree for abandoned. Raises PackageError when the packages do not go
        into the tree, TimedOut after ``patience`` seconds, InfrastructureError for everything else; the ref is as it
        was then.
        """
        steps = Steps(progress)
        with self._turn(progress):
            with steps.step("make ready"):
                self._make_ready(progress)
            before = self.installed(head) if (head := self.head()) else ()
            request = self._request(repository, packages, before)
            with steps.step("compose"), self._room() as scratch:
                rev = self.composer.commit(request, scratch, progress)
            with steps.step("read packages"):
                installed, size = installed_in_commit(self._build, rev), self._build.size_of(rev)
            _check_held(installed, request.packages)
            delta = self._publish(rev, request.parent, steps)
            if keep:
                keep.enter_context(self.lease(rev, self.holder))
            self._unfinished.unlink()
        return ComposedTree(
            ref=self.ref,
            rev=rev,
            version=request.version,
            parent=request.parent,
            installed=installed,
            changes=package_diff(before, installed),
            requested=request.packages,
            driver=self.composer.name,
            size=size,
            delta_size=delta,
            signed=self.signing is not None,
            steps=steps.taken,
        )

    def accept(self, tree: ComposedTree, repository: Path, packages: Sequence[Nevra]) -> None:
        """Keep ``tree`` at the head, and add ``packages`` from ``repository`` to those that passed.

        A second time changes nothing, also when other trees followed it since. Raises InfrastructureError when the
        tree was withdrawn meanwhile.
        """
        with self._locked():
            if self._is_followed(tree.rev):
                return
            if self.head() != tree.rev:
                raise InfrastructureError(
                    f"tree {tree.version} ({tree.rev[:12]}) was withdrawn before it was accepted",
                    hint="its run had lost its lease; run the change again",
                )
            self.tested.add(repository, packages)
            self._unaccepted.unlink(missing_ok=True)

    def withdraw(self, tree: ComposedTree) -> None:
        """Let the ref go back to the tree before; the commit stays until it is pruned. A second time changes nothing,
        and neither does it when the ref has moved on."""
        with self._locked():
            unaccepted = self.unaccepted()
            if unaccepted and unaccepted.rev == tree.rev:
                self._take_back(unaccepted)

    def put_forward(self, tree: ComposedTree) -> None:
        """Let the ref point to ``tree`` once more, for tests that are run again after it was withdrawn.

        A tree that was accepted stays where it is, at the head or behind it. Raises InfrastructureError when it was
        withdrawn and another one was published since, or when it was pruned.
        """
        with self._locked():
            head = self.head()
            if head == tree.rev or self._is_followed(tree.rev):
                return
            if head != tree.parent or not self._served.holds(tree.rev):
                raise InfrastructureError(
                    f"tree {tree.version} ({tree.rev[:12]}) was withdrawn, and the branch has moved on since",
                    hint="run the change again",
                )
            self._note_unaccepted(Unaccepted(tree.rev, tree.parent))
            self._served.set_ref(self.ref, tree.rev)
            self._served.write_summary(self.signing)

    @contextmanager
    def lease(self, rev: str, holder: str) -> Iterator[str]:
        """Keep a published commit from being pruned, and from being withdrawn by others, for the block.

        Raises InfrastructureError when it is not there.
        """
        place = self._leases / rev
        place.mkdir(parents=True, exist_ok=True)
        (place / GUARD).touch()
        with hold(place, holder):
            if not OstreeRepository(self.published).holds(rev):
                raise InfrastructureError(f"{self.published} has no commit {rev}", hint="it was pruned")
            yield rev

    def prune(self) -> tuple[str, ...]:
        """Remove commits older than ``keep_days``, never the head, its parent, an unaccepted tree or a leased commit;
        which ones were removed. What killed processes left goes as well."""
        with self._locked():
            self._create()
            self._clean()
            kept, oldest = self._kept(), time.time() - self.keep_days * DAY
            old = [commit.rev for commit in self._served.commits() if commit.time < oldest and commit.rev not in kept]
            gone = tuple(rev for rev in old if self._remove(rev))
            if gone:
                self._served.write_summary(self.signing)
            return gone

    # -- one compose ------------------------------------------------------------------------------------------------

    def _request(self, repository: Path, packages: Sequence[Nevra], before: Sequence[Nevra]) -> TreeRequest:
        parent = self.head()
        version = self._served.describe(parent).version if parent else ""
        known = {*self.treefile.packages, *(package.name for package in before)}
        sources = {source_name(package) for package in packages}
        tested = [rpm.nevra for rpm in self.tested.rpms() if source_name(rpm.nevra) not in sources]
        return TreeRequest(
            build=self._build.path,
            ref=self.ref,
            version=next_version(self.treefile.version_prefix, version),
            parent=parent,
            under_test=repository,
            packages=chosen(packages, known),
            tested=self.tested.place if tested else None,
            also=tuple(package.name for package in tested if package.name in known),
        )

    def _publish(self, rev: str, parent: str | None, steps: Steps) -> int:
        """Serve ``rev``; the size of the static delta from ``parent`` in bytes."""
        with steps.step("publish"):
            self._served.pull(self._build.path, rev)
        delta = 0
        if parent:
            with steps.step("static delta"):
                delta = self._served.make_delta(parent, rev)
        if self.signing:
            with steps.step("sign"):
                self._served.sign(rev, self.signing)
        self._note_unaccepted(Unaccepted(rev, parent))
        with steps.step("ref"):
            self._served.set_ref(self.ref, rev)
        with steps.step("summary"):
            self._served.write_summary(self.signing)
        self._build.set_ref(self.ref, rev)
        return delta

    def _make_ready(self, progress: Progress) -> None:
        """Finish or undo what killed processes began."""
        self._create()
        if unaccepted := self.unaccepted():
            progress(f"tree {unaccepted.rev[:12]} was never accepted: the ref goes back to the tree before")
            self._take_back(unaccepted)
        if self._unfinished.exists():
            self._clean()
            self._served.write_summary(self.signing)
        self._unfinished.touch()
        # rpm-ostree keeps the numbers of users by looking at the tree before, under its ref.
        if (head := self.head()) and not self._build.holds(head):
            self._build.pull(self.published, head)
        self._build.set_ref(self.ref, head)

    @contextmanager
    def _turn(self, progress: Progress) -> Iterator[None]:
        """Alone with the branch's repositories, and nobody tests the tree at the head any more."""
        end = Deadline(self.patience)
        while True:
            # Without the lock, which whoever tests needs to accept the tree.
            ended = self._tests_told(progress)
            wait_for("the end of the tests on the tree before", ended, end, evidence=self._who_tests, interval=0.1)
            with self._locked(progress):
                if not self._testers():
                    yield
                    return

    def _tests_told(self, progress: Progress) -> Callable[[], bool]:
        told: set[Holder] = set()

        def ended() -> bool:
            holders = self._testers()
            if who := ", ".join(str(holder) for holder in holders if holder not in told):
                progress(f"waiting for {who}, who tests the tree before")
            told.update(holders)
            return not holders

        return ended

    def _who_tests(self) -> str:
        return ", ".join(map(str, self._testers()))

    def _testers(self) -> tuple[Holder, ...]:
        """Who leases the tree at the head, while it is not accepted."""
        unaccepted = self.unaccepted()
        return leases(self._leases / unaccepted.rev) if unaccepted else ()

    def _is_followed(self, rev: str) -> bool:
        """Whether the head was composed after ``rev``, directly or not: only after accepted trees others are."""
        one = self.head()
        while one and one != rev and self._served.holds(one):
            one = self._served.describe(one).parent
            if one == rev:
                return True
        return False

    def _take_back(self, unaccepted: Unaccepted) -> None:
        if self.head() == unaccepted.rev:
            self._served.set_ref(self.ref, unaccepted.parent)
        self._served.write_summary(self.signing)
        self._unaccepted.unlink(missing_ok=True)

    def _note_unaccepted(self, unaccepted: Unaccepted) -> None:
        draft = self._unaccepted.with_suffix(".new")
        draft.write_text(json.dumps({"rev": unaccepted.rev, "parent": unaccepted.parent}))
        draft.replace(self._unaccepted)

    # -- places -----------------------------------------------------------------------------------------------------

    @property
    def _build(self) -> OstreeRepository:
        return OstreeRepository(self.directory / "build")

    @property
    def _served(self) -> OstreeRepository:
        return OstreeRepository(self.published)

    @property
    def _leases(self) -> Path:
        return self.directory / "leases"

    @property
    def _unaccepted(self) -> Path:
        return self.directory / "unaccepted.json"

    @property
    def _unfinished(self) -> Path:
        """A file that is there while a compose goes on, and after one that did not end well."""
        return self.directory / "unfinished"

    def _create(self) -> None:
        self._build.create("bare")
        self._served.create("archive")
        self._leases.mkdir(exist_ok=True)
        self.tested.create()

    @contextmanager
    def _room(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix=_ROOM, dir=self.directory) as name:
            yield Path(name)

    @contextmanager
    def _locked(self, progress: Progress = lambda _line: None) -> Iterator[None]:
        """Alone with the branch's repositories. A full disk is said to be one, whoever met it."""

        def tell(holder: Holder | None) -> None:
            progress(f"waiting for {holder or 'somebody'}, who works on the trees of {self.directory.name}")

        condition = f"the lock of the trees of {self.directory.name}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with exclusive(self.directory / "lock", self.holder, condition, self.patience, tell):
                yield
        except OSError as failed:
            if failed.errno in (errno.ENOSPC, errno.EDQUOT):
                raise full(self.directory, str(failed)) from failed
            raise InfrastructureError(f"the trees in {self.directory} cannot be worked on: {failed}") from failed

    # -- cleaning ---------------------------------------------------------------------------------------------------

    def _clean(self) -> None:
        for left in self.directory.glob(f"{_ROOM}*"):
            shutil.rmtree(left, ignore_errors=True)
        self.tested.remove_leftovers()
        self._served.remove_leftovers()
        self._build.remove_leftovers()
        self._build.keep_only_refs()

    def _kept(self) -> set[str | None]:
        """The commits that are never pruned."""
        head, unaccepted = self.head(), self.unaccepted()
        kept = {head, self._served.describe(head).parent} if head else set[str | None]()
        return kept | ({unaccepted.rev, unaccepted.parent} if unaccepted else set())

    def _remove(self, rev: str) -> bool:
        """Remove a commit unless somebody leases it; whether it went."""
        with unleased(self._leases / rev) as free:
            if free:
                self._served.delete([rev])
                shutil.rmtree(self._leases / rev, ignore_errors=True)
            return free


def chosen(packages: Sequence[Nevra], known: Collection[str]) -> tuple[Nevra, ...]:
    """Of what was built, what a tree that knows the names ``known`` takes: those of them, or all when it is none.

    A source makes more packages than any system holds, and some that exclude each other.
    """
    return tuple(package for package in packages if package.name in known) or tuple(packages)


def next_version(prefix: str, before: str) -> str:
    """The version after ``before``: its last number and one more, or ``prefix``.1 when it has another prefix."""
    found = re.fullmatch(rf"{re.escape(prefix)}\.(\d+)", before)
    return f"{prefix}.{int(found[1]) + 1 if found else 1}"


def _check_held(installed: Sequence[Nevra], requested: Sequence[Nevra]) -> None:
    held = {str(package) for package in installed}
    if missing := [str(package) for package in requested if str(package) not in held]:
        raise PackageError(
            f"the tree was composed without {', '.join(missing)}", hint="does another package replace it?"
        )
