"""The store of base images: each is built once, booted once, and kept while somebody needs it.

A base is addressed by what it was made from: branch, kickstart, and the state of the repositories. Several processes
may share a store; what they agree on are locks of the kernel, so a killed one is in nobody's way.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distgate import locks
from distgate.base_images.build import BuildRequest, BuildTools, build
from distgate.base_images.entries import (
    CONFIRMED,
    QUALIFICATION,
    USED,
    BaseEntry,
    StoreListing,
    largest,
    list_store,
    read_entry,
)
from distgate.base_images.prune import Pruned, lock_of, prune
from distgate.base_images.qualification import Qualification, qualify
from distgate.errors import ConfigurationError, GaveUp, InfrastructureError
from distgate.files import disk_usage, remove_tree
from distgate.images.base import BaseImage
from distgate.records import write_record
from distgate.steps import Progress

if TYPE_CHECKING:
    from distgate.base_images.definition import BaseDefinition

log = logging.getLogger(__name__)

#: A base may be removed between being named and being leased; more often than this it is no accident.
LEASE_TRIES = 5
#: Seconds for which a build that failed is not tried again while an older base serves.
RETRY_BUILD_AFTER = 3600.0
#: Seconds beyond a build for which whoever waits for it is patient: it is qualified too.
_QUALIFYING = 1800.0


class RefusedBase(GaveUp):
    """A base image failed its qualification: it is not used, and neither built nor tried again by itself."""


def _quiet(_line: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class BaseStore:
    """The store in the directory ``root``, kept below ``limit`` bytes of disk where leases allow it.

    Without a ``tools`` nothing can be built or qualified. A base whose repositories were last looked at more than
    ``max_age`` seconds ago is refreshed when it is asked for; None means never. ``owner`` is what others who wait for
    this process read.
    """

    root: Path
    limit: int
    tools: BuildTools | None = None
    max_age: float | None = None
    owner: str = "distgate"

    @property
    def bases(self) -> Path:
        return self.root.absolute() / "bases"

    def listing(self) -> StoreListing:
        """All that is in the store."""
        return list_store(self.bases)

    def base(self, definition: BaseDefinition, progress: Progress = _quiet) -> BaseImage:
        """The newest qualified base of a branch and kickstart; it is built and qualified when there is none.

        Whoever asks while another process builds it waits, and ``progress`` hears for whom. Raises RefusedBase
        when it failed its qualification, InfrastructureError when it cannot be built or a repository is away.
        """
        entry = self.listing().qualified_for(definition.branch, definition.kickstart_hash)
        if entry is None:
            return self.refresh(definition, progress)
        if self.max_age is not None and time.time() - entry.confirmed > self.max_age:
            entry = self._renewed(definition, entry, progress)
        _stamp(entry.directory / USED)
        return entry.base

    def refresh(self, definition: BaseDefinition, progress: Progress = _quiet) -> BaseImage:
        """The base for what the repositories hold now, built and qualified unless it is there already.

        Only then is it the one that ``base`` returns; those who lease an older one keep it. Raises as ``base``.
        """
        entry = self._ensure(definition, definition.snapshot(), progress)
        _stamp(entry.directory / CONFIRMED)
        _stamp(entry.directory / USED)
        return entry.base

    @contextmanager
    def lease(self, identity: str, holder: str) -> Iterator[BaseImage]:
        """The base ``identity``, which nobody removes during the block; ``holder`` says for whom (a run's ID).

        It ends with the process at the latest. Raises Gone when the base was removed before it could be leased.
        """
        directory = self.bases / identity
        with locks.lease(directory, holder):
            _stamp(directory / USED)
            yield _existing(directory).base

    @contextmanager
    def leased_base(
        self, definition: BaseDefinition, holder: str, progress: Progress = _quiet
    ) -> Iterator[BaseImage]:
        """``base`` and ``lease`` in one: the base that was named is there for the whole block."""
        with ExitStack() as stack:
            for tries in reversed(range(LEASE_TRIES)):
                base = self.base(definition, progress)
                try:
                    stack.enter_context(self.lease(base.identity, holder))
                    break
                except locks.Gone:
                    if not tries:
                        raise
            yield base

    def qualify(self, identity: str, *, again: bool = False, progress: Progress = _quiet) -> Qualification:
        """The qualification of a base: what was found before, unless there is nothing or ``again`` is set.

        Raises InfrastructureError when it cannot be tried here.
        """
        with self._locked(identity, f"base image {identity}", progress):
            entry = _existing(self.bases / identity)
            if entry.qualification is None or again:
                entry = self._qualified(entry, progress)
        assert entry.qualification is not None  # noqa: S101 - what _qualified is for
        return entry.qualification

    def prune(self, limit: int | None = None, *, dry_run: bool = False, ended: Collection[str] = ()) -> Pruned:
        """Remove the bases of branches that have ``ended``, and others until the store is below ``limit`` bytes (its
        own limit when None); see base_store_prune."""
        return prune(self.root.absolute(), self.limit if limit is None else limit, dry_run=dry_run, ended=ended)

    def find(self, beginning: str) -> BaseEntry:
        """The base whose identity begins so. ConfigurationError when there is none, or more than one."""
        listing = self.listing()
        entries = [entry for entry in listing.entries if entry.identity.startswith(beginning)]
        if len(entries) == 1:
            return entries[0]
        for odd in listing.odd:
            if odd.directory.name == beginning:
                raise InfrastructureError(odd.problem, hint="distgate images prune removes it")
        what = f"{len(entries)} base images" if entries else "no base image"
        raise ConfigurationError(f"{what} in {self.root}: {beginning}*", hint="distgate images list shows them all")

    def _renewed(self, definition: BaseDefinition, old: BaseEntry, progress: Progress) -> BaseEntry:
        """The base of today or, when that cannot be had or is being made by another, the one that served so far."""
        try:
            snapshot = definition.snapshot()
            entry = self._ensure(definition, snapshot, progress, instead=old)
        except (InfrastructureError, RefusedBase) as error:
            log.warning("%s is out of date and stays in use: %s", old.title, error.message)
            progress(f"{old.title} is out of date and stays in use: {error.message}")
            return old
        if entry.identity == definition.identity(snapshot):
            _stamp(entry.directory / CONFIRMED)
        return entry

    def _ensure(
        self, definition: BaseDefinition, snapshot: str, progress: Progress, *, instead: BaseEntry | None = None
    ) -> BaseEntry:
        """The qualified base of a definition and snapshot; ``instead`` serves while another process makes it."""
        started = time.time()
        request = BuildRequest(
            definition, snapshot, largest(self.listing().entries, definition.branch, definition.name)
        )
        with ExitStack() as stack:
            if instead is not None:
                stream = locks.try_lock(self._lock(request.identity), self.owner)
                if stream is None:
                    progress(f"{instead.title} serves while {locks.owner_of(self._lock(request.identity))} renews it")
                    return instead
                stack.enter_context(stream)
            else:
                stack.enter_context(self._locked(request.identity, request.title, progress))
            entry = self._built(request, started - (RETRY_BUILD_AFTER if instead else 0), progress)
            if self._is_unproved(entry):
                entry = self._qualified(entry, progress)
        if not entry.qualified:
            raise refusal(entry)
        return entry

    def _is_unproved(self, entry: BaseEntry) -> bool:
        """Whether it was not booted yet, or was refused under an accelerator that may have been at fault itself."""
        if entry.qualification is None or self.tools is None:
            return entry.qualification is None
        return entry.refused and entry.qualification.accelerator != self.tools.accelerated_by().name

    def _built(self, request: BuildRequest, since: float, progress: Progress) -> BaseEntry:
        """The entry, built when it is absent, unless a build of it has failed after ``since``."""
        with suppress(FileNotFoundError):
            return read_entry(self.bases / request.identity)
        memory = self.root.absolute() / "failures" / f"{request.identity}.json"
        _raise_failure_after(since, memory)
        tools = self._tools()
        self._make_room(request)
        progress(f"{request.title} is built: there is none of this kickstart and these repositories yet")
        try:
            entry = build(request, self.bases, tools, progress)
        except InfrastructureError as error:
            _remember_failure(error, memory)
            raise
        memory.unlink(missing_ok=True)
        self.prune()
        return entry

    def _make_room(self, request: BuildRequest) -> None:
        """Prune for a base of the expected size: below the limit, and for the disk, which others fill too."""
        if request.expected is None:
            return
        limit = self.limit - request.expected
        shortage = request.expected - shutil.disk_usage(self.bases).free
        if shortage > 0:
            limit = min(limit, disk_usage(self.bases) - shortage)
        self.prune(max(0, limit))

    def _qualified(self, entry: BaseEntry, progress: Progress) -> BaseEntry:
        tools = self._tools()
        log_dir = entry.directory / "qualification"
        with locks.lease(entry.directory, f"qualification by {self.owner}"):
            remove_tree(log_dir, ignore_errors=True)  # the last one's, or what a killed one left: an overlay as well
            outcome = qualify(
                entry.base,
                entry.facts.packages,
                tools.guests,
                tools.accelerated_by(),
                log_dir,
                tools.boot_timeout,
                progress,
            )
            write_record(entry.directory / QUALIFICATION, outcome)
        progress(f"{entry.title} {'is qualified' if outcome.passed else 'is refused'} after {outcome.seconds:.1f} s")
        return read_entry(entry.directory)

    def _tools(self) -> BuildTools:
        if self.tools is None:
            raise ConfigurationError(
                f"the image store {self.root} is opened without a builder", hint="open it with build tools"
            )
        return self.tools

    def _lock(self, identity: str) -> Path:
        return lock_of(self.root.absolute() / "locks", identity)

    @contextmanager
    def _locked(self, identity: str, title: str, progress: Progress) -> Iterator[None]:
        def waits(holder: locks.LockOwner | None) -> None:
            progress(f"waiting for {title}, which {holder or 'another process'} makes")

        patience = (self.tools.build_timeout if self.tools else 0.0) + _QUALIFYING
        with locks.exclusive(
            self._lock(identity), self.owner, f"{title}, which another process makes", patience, waits
        ):
            yield


def refusal(entry: BaseEntry) -> RefusedBase:
    """The error for a base that failed its qualification."""
    qualification = entry.qualification
    reasons = "; ".join(qualification.reasons) if qualification else "it was not tried"
    under = f", booted under {qualification.accelerator}" if qualification else ""
    return RefusedBase(
        f"{entry.title} failed its qualification{under}, and is not used: {reasons}",
        hint=f"not the package's fault; distgate images qualify {entry.identity} --again tries it once more",
    )


def _existing(directory: Path) -> BaseEntry:
    try:
        return read_entry(directory)
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no base image {directory.name} in {directory.parent}", hint="distgate images list shows them"
        ) from None


def _stamp(path: Path) -> None:
    # A base that is removed at this very moment needs no date any more.
    with suppress(FileNotFoundError):
        path.touch()


def _raise_failure_after(since: float, memory: Path) -> None:
    """Raise what another's build of this base ended with, so that not everybody who waited for it repeats it."""
    try:
        record = json.loads(memory.read_text())
        if float(record["at"]) < since:
            return
        failed = InfrastructureError(record["message"], hint=record["hint"], evidence=record["evidence"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    raise failed


def _remember_failure(failed: InfrastructureError, memory: Path) -> None:
    record = {"at": time.time(), "message": failed.message, "hint": failed.hint, "evidence": failed.evidence}
    with suppress(OSError):  # a full disk is a reason to fail, not to fail differently
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_record(memory, record)
