"""Making room in a store of base images: who may go, in which order, and the going itself."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distgate.base_images.entries import StoreListing, list_store
from distgate.files import disk_usage, remove_tree
from distgate.locks import leases, try_lock, unleased

#: Directories on their way into the store and out of it; they begin with a dot, which no reader of bases looks at.
MAKING = ".making-"
REMOVING = ".removing-"
#: Why a base may go.
_OLDEST, _ENDED = "used longest ago of those that may go", "its branch has ended"


@dataclass(frozen=True)
class Removal:
    """A base that was removed, or would be: the bytes of disk that it took, and why it could go."""

    identity: str
    size: int
    reason: str


@dataclass(frozen=True)
class Pruned:
    """What a prune did: sizes in bytes before and after it, and why what is left was ``kept``, by identity."""

    removed: tuple[Removal, ...]
    kept: Mapping[str, str]
    before: int
    after: int
    limit: int

    @property
    def within_limit(self) -> bool:
        return self.after <= self.limit


def protected(listing: StoreListing, ended: Collection[str] = ()) -> dict[str, str]:
    """The bases that are never removed while they are what they are, and why; none of branches that ``ended``."""
    reasons = {entry.identity: f"the current one of {branch}" for (branch, _name), entry in listing.current.items()}
    for (branch, _name), entry in listing.refused_bases.items():
        reasons[entry.identity] = f"remembered: {branch} would build it again, and it was refused"
    over = {entry.identity for entry in listing.entries if entry.facts.branch in ended}
    return {identity: reason for identity, reason in reasons.items() if identity not in over}


def candidates(listing: StoreListing, ended: Collection[str] = ()) -> list[Removal]:
    """What may go, first who shall go first: what nobody can read, then the base that was used longest ago."""
    reasons = protected(listing, ended)
    broken = [Removal(odd.directory.name, odd.size, odd.problem) for odd in listing.odd if odd.named_as_base]
    unused = [entry for entry in listing.entries if entry.identity not in reasons]
    return broken + [
        Removal(entry.identity, entry.size, _ENDED if entry.facts.branch in ended else _OLDEST)
        for entry in sorted(unused, key=lambda entry: (entry.facts.branch not in ended, entry.used))
    ]


def prune(root: Path, limit: int, *, dry_run: bool = False, ended: Collection[str] = ()) -> Pruned:
    """Bring the store below ``limit`` bytes of disk as far as nobody is disturbed.

    What cannot be read goes whatever the limit is, and so do the bases of branches that have ``ended`` and what
    killed builders left behind.
    """
    bases, locks = root / "bases", root / "locks"
    if not dry_run:
        _clear_abandoned(bases, locks)
    listing = list_store(bases)
    before = size = disk_usage(bases)
    removed: list[Removal] = []
    reasons = protected(listing, ended)
    for candidate in candidates(listing, ended):
        if size <= limit and candidate.reason == _OLDEST:
            reasons[candidate.identity] = "the limit leaves room for it"
        elif reason := _in_use(bases / candidate.identity, locks) if dry_run else _remove(bases, candidate, locks):
            reasons[candidate.identity] = reason
        else:
            removed.append(candidate)
            size -= candidate.size
    return Pruned(tuple(removed), reasons, before, size if dry_run else disk_usage(bases), limit)


def lock_of(locks: Path, identity: str) -> Path:
    """The lock that whoever builds, qualifies or removes a base holds."""
    return locks / f"{identity}.lock"


def _remove(bases: Path, candidate: Removal, locks: Path) -> str:
    """Remove a base; the reason why not, if somebody uses it."""
    directory = bases / candidate.identity
    stream = try_lock(lock_of(locks, candidate.identity), "prune")
    if stream is None:
        return "somebody builds or qualifies it"
    with closing(stream), unleased(directory) as free:
        if not free:
            return _leased(directory)
        leaving = bases / f"{REMOVING}{candidate.identity}-{uuid.uuid4().hex[:8]}"
        directory.rename(leaving)  # at once and whole: nobody sees half of it
    remove_tree(leaving, ignore_errors=True)
    return ""


def _in_use(directory: Path, locks: Path) -> str:
    stream = try_lock(lock_of(locks, directory.name), "prune")
    if stream is None:
        return "somebody builds or qualifies it"
    with closing(stream), unleased(directory) as free:
        return "" if free else _leased(directory)


def _leased(directory: Path) -> str:
    return f"leased by {', '.join(str(holder) for holder in leases(directory)) or 'somebody'}"


def _clear_abandoned(bases: Path, locks: Path) -> None:
    for directory in _hidden(bases):
        if directory.name.startswith(REMOVING):
            remove_tree(directory, ignore_errors=True)
        elif directory.name.startswith(MAKING):
            stream = try_lock(lock_of(locks, directory.name.removeprefix(MAKING)), "prune")
            if stream is not None:
                with closing(stream):
                    remove_tree(directory, ignore_errors=True)


def _hidden(bases: Path) -> Iterator[Path]:
    if bases.is_dir():
        yield from (path for path in bases.iterdir() if path.name.startswith("."))
