"""Upkeep of a host: base images are renewed, and what has expired is removed. Every task returns what it did."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from prefect import get_run_logger, task

from blocks import GuestMachine, ImageStore, OSTreeRepo
from distgate.errors import ConfigurationError
from distgate.guests.libvirt_connection import reap
from distgate.ledger.run_ends import holder_has_ended
from distgate.operations.clean_up import DAY, Freed, expired_copies, expired_runs, remove_runs
from distgate.operations.prune_ledger import forget
from distgate.operations.stored_results import ResultStorage, expired_results
from distgate.settings import settings
from tasks.operations.ledger import open_ledger
from tasks.run.artifacts import artifact_store, artifacts_dir

#: Where forgotten lines of the ledger are kept, below the directory of artifacts.
ARCHIVE = "ledger-archive"


@task(name="Remove artifacts")
def remove_artifacts(dry_run: bool) -> list[Freed]:
    """Remove the artifacts of runs that ended DISTGATE_KEEP_DAYS ago."""
    directory = artifacts_dir()
    expired = expired_runs(open_ledger(), directory, time.time(), settings().keep_days * DAY)
    if not dry_run:
        remove_runs(directory, expired)
    return expired


@task(name="Remove stored artifacts")
def remove_stored(site: str, dry_run: bool) -> list[Freed]:
    """Remove from the site's artifact store the runs that ended DISTGATE_KEEP_DAYS ago; nothing without a store."""
    store = artifact_store(site)
    if store is None:
        return []
    expired = expired_copies(open_ledger(), store.runs(), time.time(), settings().keep_days * DAY)
    for copy in [] if dry_run else expired:
        store.remove(copy.what)
    return expired


@task(name="Remove results")
def remove_results(dry_run: bool) -> list[Freed]:
    """Remove from Prefect's storage the results of stages of runs that ended DISTGATE_KEEP_DAYS ago; they can be
    retried, and begin anew."""
    storage = result_storage()
    expired = expired_results(open_ledger(), storage.results(), time.time(), settings().keep_days * DAY)
    if not dry_run:
        storage.remove(name for result in expired for name in result.names)
    return [result.freed for result in expired]


def result_storage() -> ResultStorage:
    """Where this worker's runs keep their results. ConfigurationError when it is a block that no fsspec opens."""
    from prefect.filesystems import LocalFileSystem, RemoteFileSystem
    from prefect.results import get_default_result_storage

    block = get_default_result_storage()
    if isinstance(block, RemoteFileSystem):
        return ResultStorage(block.basepath, block.settings)
    if isinstance(block, LocalFileSystem):
        return ResultStorage(str(Path(block.basepath or ".").expanduser().resolve()))
    raise ConfigurationError(
        f"results in a {type(block).__name__} cannot be cleaned up",
        hint="let the storage itself remove what is old, or use a block of the type Remote File System",
    )


@task(name="Forget runs")
def forget_runs(dry_run: bool) -> list[Freed]:
    """Move what ended DISTGATE_KEEP_LEDGER_DAYS ago from the ledger to its archive."""
    days = settings().keep_ledger_days
    archive = artifacts_dir() / ARCHIVE
    forgotten = forget(open_ledger(), time.time() - days * DAY, archive, dry_run=dry_run)
    if not forgotten.changes:
        return []
    what = f"{forgotten.changes} changes, {forgotten.runs} runs, {forgotten.messages} messages"
    return [Freed("lots of ledger rows", what, f"ended {days:g} days ago; archived in {archive}")]


@task(name="Prune images")
def prune_images(site: str, dry_run: bool) -> list[Freed]:
    """Bring the store of base images below its limit; what is leased or current stays."""
    pruned = ImageStore.of(site).store().prune(dry_run=dry_run)
    return [Freed("base images", base.identity, base.reason, base.size) for base in pruned.removed]


@task(name="End guests")
def end_guests(site: str, dry_run: bool) -> list[Freed]:
    """End the guests on this host whose processes are gone; held ones stay."""
    killed = reap(GuestMachine.of(site).directory, dry_run=dry_run)
    return [Freed("guests", f"process {pid}", "the process that started it is gone") for pid in killed]


@task(name="Prune trees")
def prune_trees(site: str, dry_run: bool) -> list[Freed]:
    """Prune old commits of every branch that has trees, disks that no test begins on and surplus images; none
    without a block of them."""
    repository = OSTreeRepo.saved(site)
    if repository is None:
        return []
    return [freed for branch in _branches(repository) for freed in _pruned(repository, branch, dry_run)]


def _branches(repository: OSTreeRepo) -> list[str]:
    return sorted(path.parent.name for path in Path(repository.root).glob("*/ostree"))


def _pruned(repository: OSTreeRepo, branch: str, dry_run: bool) -> Iterator[Freed]:
    trees = repository.trees(branch, "clean-up")
    for rev in trees.prune(dry_run=dry_run):
        yield Freed("tree commits", f"{branch} {rev[:10]}", "superseded, and not in use")
    for rev in repository.disks(branch).prune(trees.published, dry_run=dry_run):
        yield Freed("tree disks", f"{branch} {rev[:10]}", "its commit is not the branch's head, and it is not in use")
    for name in repository.images(branch).prune(dry_run=dry_run):
        yield Freed("tree images", f"{branch} {name}", "newer ones are kept, and it is not in use")


@task(name="Withdraw abandoned trees")
def withdraw_abandoned_trees(site: str) -> list[str]:
    """Let every branch go back from a tree whose run has ended without accepting it; a sentence for each.

    A run that is killed cannot do it itself, and its tree would be the head until the next compose.
    """
    repository = OSTreeRepo.saved(site)
    if repository is None:
        return []
    messages = []
    for branch in _branches(repository):
        trees = repository.trees(branch, "reconciler")
        tree = trees.withdraw_abandoned(lambda holder: holder_has_ended(open_ledger(), holder))
        if tree is not None:
            messages.append(f"{branch}: tree {tree.rev[:12]} was never accepted, and its {tree.holder} has ended")
    for line in messages:
        get_run_logger().warning("%s: the ref is on the tree before again", line)
    return messages


@task(name="Branches with bases")
def branches_with_bases(site: str) -> list[str]:
    """The watched branches for which the store has a current base image."""
    listing = ImageStore.of(site).store().listing()
    served = sorted({branch for branch, _ in listing.current})
    return [branch for branch in served if _any(branch, settings().branches)]


@task(name="Refresh base image", task_run_name="Refresh base image of {branch}")
def refresh_base(site: str, branch: str) -> dict[str, str]:
    """The base image of a branch for what its repositories hold now: built and qualified first if it is new, and
    current only then. Raises as BaseStore.refresh does; the one that was current stays so."""
    store = ImageStore.of(site)
    opened = store.store()
    before = {entry.identity for entry in opened.listing().entries}
    base = opened.refresh(store.definition(branch), get_run_logger().info)
    entry = opened.find(base.identity)
    qualification = entry.qualification
    return {
        "branch": branch,
        "image": entry.title,
        "outcome": "unchanged" if base.identity in before else "new, qualified, current",
        "qualified in": f"{qualification.seconds:.0f} s under {qualification.accelerator}" if qualification else "",
    }


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
