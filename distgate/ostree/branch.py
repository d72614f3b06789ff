"""The trees of one branch of Atomic Host: composed, published, accepted or withdrawn, and pruned.

A commit is made in no ref, copied to the repository that is served, gets its static delta and its signature there,
and only then do the ref and the summary move. Until somebody accepts it, a file says where the ref goes back to: a
tree that was neither accepted nor withdrawn, and that nobody leases any more, is withdrawn when the next one is
composed, or when somebody looks for such (``withdraw_abandoned``). Whatever is killed, and when: the ref is on a
commit that is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError, PackageError
from distgate.files import remove_tree
from distgate.locks import unleased
from distgate.ostree.base import ComposedTree, TreeComposer, TreeRequest
from distgate.ostree.branch_directory import BranchPlace, PendingTree
from distgate.ostree.commit_packages import installed_in_commit
from distgate.ostree.repository import OstreeRepository, SigningKey
from distgate.ostree.tested_packages import TestedPackages, source_name
from distgate.ostree.treefile import Treefile
from distgate.rpm.diff import package_diff
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Steps

DAY = 86400.0
#: Seconds that a compose waits for another of its branch, and for the end of the tests on the tree before.
PATIENCE = 4 * 3600.0


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
    def place(self) -> BranchPlace:
        """What is below the directory."""
        return BranchPlace(self.directory, self.holder, self.patience)

    @property
    def published(self) -> Path:
        """The repository that is served: of mode archive, without a commit until the first tree."""
        return self.place.served.path

    @property
    def tested(self) -> TestedPackages:
        """The packages that passed on this branch."""
        return self.place.tested

    def create(self) -> None:
        """Make the repositories unless they are there. Raises InfrastructureError."""
        with self.place.locked():
            self.place.create()

    def head(self) -> str | None:
        """The commit that the branch's ref points to; None before the first."""
        return self._served.head(self.ref)

    def unaccepted(self) -> PendingTree | None:
        """The tree at the head as long as nobody accepted it."""
        return self.place.unaccepted.read()

    def installed(self, rev: str) -> tuple[Nevra, ...]:
        """The packages of a published commit, from its own RPM database, sorted. Raises InfrastructureError."""
        return installed_in_commit(self._served, rev)

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
        with self.place.turn(progress):
            with steps.step("make ready"):
                self._make_ready(progress)
            before = self.installed(head) if (head := self.head()) else ()
            request = self._request(repository, packages, before)
            with steps.step("compose"), self.place.scratch() as scratch:
                rev = self.composer.commit(request, scratch, progress)
            with steps.step("read packages"):
                installed, size = installed_in_commit(self._build, rev), self._build.size_of(rev)
            _check_held(installed, request.packages)
            delta = self._publish(rev, request, steps)
            if keep:
                keep.enter_context(self.lease(rev, self.holder))
            self.place.unfinished.unlink()
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
        with self.place.locked():
            if self._is_followed(tree.rev):
                return
            if self.head() != tree.rev:
                raise InfrastructureError(
                    f"tree {tree.version} ({tree.rev[:12]}) was withdrawn before it was accepted",
                    hint="its run had lost its lease; run the change again",
                )
            self.tested.add(repository, packages)
            self.place.unaccepted.remove()

    def withdraw(self, tree: ComposedTree) -> None:
        """Let the ref go back to the tree before; the commit stays until it is pruned. A second time changes nothing,
        and neither does it when the ref has moved on."""
        with self.place.locked():
            unaccepted = self.unaccepted()
            if unaccepted and unaccepted.rev == tree.rev:
                self._restore_parent(unaccepted)

    def withdraw_abandoned(self, ended: Callable[[str], bool]) -> PendingTree | None:
        """Let the ref go back from a tree that nobody will accept: nobody leases it, and ``ended`` says so of whoever
        it was made for. Returns that tree, and None when there is none, or when somebody works here just now."""
        if self._is_abandoned(ended):
            with self.place.locked_now() as alone:
                unaccepted = self.unaccepted()
                if alone and unaccepted and self._is_abandoned(ended):
                    self._restore_parent(unaccepted)
                    return unaccepted
        return None

    def _is_abandoned(self, ended: Callable[[str], bool]) -> bool:
        unaccepted = self.unaccepted()
        return unaccepted is not None and not self.place.testers() and ended(unaccepted.holder)

    def republish(self, tree: ComposedTree) -> None:
        """Let the ref point to ``tree`` once more, for tests that are run again after it was withdrawn.

        A tree that was accepted stays where it is, at the head or behind it. Raises InfrastructureError when it was
        withdrawn and another one was published since, or when it was pruned.
        """
        with self.place.locked():
            head = self.head()
            if head == tree.rev or self._is_followed(tree.rev):
                return
            if head != tree.parent or not self._served.holds(tree.rev):
                raise InfrastructureError(
                    f"tree {tree.version} ({tree.rev[:12]}) was withdrawn, and the branch has moved on since",
                    hint="run the change again",
                )
            self.place.unaccepted.write(PendingTree(tree.rev, tree.parent, self.holder))
            self._served.set_ref(self.ref, tree.rev)
            self._served.write_summary(self.signing)

    def lease(self, rev: str, holder: str) -> AbstractContextManager[str]:
        """Keep a published commit from being pruned, and from being withdrawn by others, for the block.

        Raises InfrastructureError when it is not there.
        """
        return self.place.lease(rev, holder)

    def prune(self, *, dry_run: bool = False) -> tuple[str, ...]:
        """Remove commits older than ``keep_days``, never the head, its parent, an unaccepted tree or a leased commit;
        which ones were removed, or would be. What killed processes left goes as well."""
        with self.place.locked():
            if not dry_run:
                self.place.create()
                self.place.clean()
            protected, oldest = self._kept(), time.time() - self.keep_days * DAY
            old = [
                commit.rev
                for commit in self._served.commits()
                if commit.time < oldest and commit.rev not in protected
            ]
            removed = tuple(rev for rev in old if self._remove(rev, dry_run))
            if removed and not dry_run:
                self._served.write_summary(self.signing)
            return removed

    # -- one compose ------------------------------------------------------------------------------------------------

    def _request(self, repository: Path, packages: Sequence[Nevra], before: Sequence[Nevra]) -> TreeRequest:
        parent = self.head()
        names = {*self.treefile.packages, *(package.name for package in before)}
        sources = {source_name(package) for package in packages}
        tested = [rpm.nevra for rpm in self.tested.rpms() if source_name(rpm.nevra) not in sources]
        return TreeRequest(
            build=self._build.path,
            ref=self.ref,
            version=self.place.versions.next(self.treefile.version_prefix, self._versions_before(parent)),
            parent=parent,
            under_test=repository,
            packages=chosen(packages, names),
            tested=self.tested.link if tested else None,
            also=tuple(package.name for package in tested if package.name in names),
        )

    def _versions_before(self, parent: str | None) -> list[str]:
        if self.place.versions.remembers():
            return [self._served.describe(parent).version] if parent else []
        return [commit.version for commit in self._served.commits()]

    def _publish(self, rev: str, request: TreeRequest, steps: Steps) -> int:
        """Serve ``rev``; the size of the static delta from its parent in bytes."""
        parent = request.parent
        with steps.step("publish"):
            self.place.versions.publish(request.version)
            self._served.pull(self._build.path, rev)
        delta = 0
        if parent:
            with steps.step("static delta"):
                delta = self._served.make_delta(parent, rev)
        if self.signing:
            with steps.step("sign"):
                self._served.sign(rev, self.signing)
        self.place.unaccepted.write(PendingTree(rev, parent, self.holder))
        with steps.step("ref"):
            self._served.set_ref(self.ref, rev)
        with steps.step("summary"):
            self._served.write_summary(self.signing)
        self._build.set_ref(self.ref, rev)
        return delta

    def _make_ready(self, progress: Progress) -> None:
        """Finish or undo what killed processes began."""
        self.place.create()
        if unaccepted := self.unaccepted():
            progress(f"tree {unaccepted.rev[:12]} was never accepted: the ref goes back to the tree before")
            self._restore_parent(unaccepted)
        if self.place.unfinished.exists():
            self.place.clean()
            self._served.write_summary(self.signing)
        self.place.unfinished.touch()
        # rpm-ostree keeps the numbers of users by looking at the tree before, under its ref.
        if (head := self.head()) and not self._build.holds(head):
            self._build.pull(self.published, head)
        self._build.set_ref(self.ref, head)

    def _is_followed(self, rev: str) -> bool:
        """Whether the head was composed after ``rev``, directly or not: only after accepted trees others are."""
        ancestor = self.head()
        while ancestor and ancestor != rev and self._served.holds(ancestor):
            ancestor = self._served.describe(ancestor).parent
            if ancestor == rev:
                return True
        return False

    def _restore_parent(self, unaccepted: PendingTree) -> None:
        if self.head() == unaccepted.rev:
            self._served.set_ref(self.ref, unaccepted.parent)
        self._served.write_summary(self.signing)
        self.place.unaccepted.remove()

    # -- places -----------------------------------------------------------------------------------------------------

    @property
    def _build(self) -> OstreeRepository:
        return self.place.build

    @property
    def _served(self) -> OstreeRepository:
        return self.place.served

    # -- cleaning ---------------------------------------------------------------------------------------------------

    def _kept(self) -> set[str | None]:
        """The commits that are never pruned."""
        head, unaccepted = self.head(), self.unaccepted()
        protected = {head, self._served.describe(head).parent} if head else set[str | None]()
        return protected | ({unaccepted.rev, unaccepted.parent} if unaccepted else set())

    def _remove(self, rev: str, dry_run: bool) -> bool:
        """Remove a commit unless somebody leases it; whether it went, or would go."""
        with unleased(self.place.lease_of(rev)) as free:
            if free and not dry_run:
                self._served.delete([rev])
                remove_tree(self.place.lease_of(rev), ignore_errors=True)
            return free


def chosen(packages: Sequence[Nevra], names: Collection[str]) -> tuple[Nevra, ...]:
    """Of what was built, what a tree that knows ``names`` takes: those of them, or all when it is none.

    A source makes more packages than any system holds, and some that exclude each other.
    """
    return tuple(package for package in packages if package.name in names) or tuple(packages)


def _check_held(installed: Sequence[Nevra], requested: Sequence[Nevra]) -> None:
    names = {str(package) for package in installed}
    if missing := [str(package) for package in requested if str(package) not in names]:
        raise PackageError(
            f"the tree was composed without {', '.join(missing)}", hint="does another package replace it?"
        )
