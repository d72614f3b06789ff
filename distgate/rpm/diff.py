"""What changed from one list of installed packages to another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distgate.rpm.nevra import Nevra


@dataclass(frozen=True)
class PackageChange:
    """One package by name and architecture: ``before`` is None for an added one, ``after`` for a removed one."""

    name: str
    arch: str
    before: Nevra | None
    after: Nevra | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.after}"
        if self.after is None:
            return f"- {self.before}"
        return f"! {self.before} -> {self.after}"


def package_diff(before: Iterable[Nevra], after: Iterable[Nevra]) -> tuple[PackageChange, ...]:
    """What was added, removed and replaced, by name. Of packages that may be installed several times, such as
    kernels, those of both lists are left out and the others paired in the order of their versions."""
    old, new = _by_name(before), _by_name(after)
    changes: list[PackageChange] = []
    for name, arch in sorted(old.keys() | new.keys()):
        removed = sorted(old[name, arch] - new[name, arch])
        come = sorted(new[name, arch] - old[name, arch])
        for position in range(max(len(removed), len(come))):
            changes.append(PackageChange(name, arch, _at(removed, position), _at(come, position)))
    return tuple(changes)


def diff_text(changes: Sequence[PackageChange]) -> str:
    """The changes as people read them: a line each (+ added, - removed, ! replaced), the replaced ones first."""
    if not changes:
        return "no package changed\n"
    order = sorted(changes, key=lambda change: (change.before is None or change.after is None, change.after is None))
    return "".join(f"{change}\n" for change in order)


def _by_name(packages: Iterable[Nevra]) -> defaultdict[tuple[str, str], set[Nevra]]:
    by_name: defaultdict[tuple[str, str], set[Nevra]] = defaultdict(set)
    for package in packages:
        by_name[package.name, package.arch].add(
            Nevra(package.name, package.epoch, package.version, package.release, package.arch)
        )
    return by_name


def _at(packages: list[Nevra], position: int) -> Nevra | None:
    return packages[position] if position < len(packages) else None
