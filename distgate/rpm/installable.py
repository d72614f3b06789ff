"""The greatest set of packages that can be installed together, exactly, and why each of the others is left out.

Asking whether a set can be installed costs a run of the solver, so the sets are chosen with care: every refusal is
narrowed to a smallest group that does not go together (a core), and the next attempt leaves out a smallest choice
that breaks every core so far. The first attempt that is not refused is then the greatest set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Refusal:
    """Why a set cannot be installed: one line, all that was said, and those of the set that are named in it."""

    line: str
    output: str
    named: tuple[str, ...] = ()


Attempt = Callable[[Sequence[str]], Refusal | None]
"""Says why these cannot be installed together; None when they can."""

Rival = Callable[[str, Refusal], str | None]
"""Names the candidate that the root holds an earlier build of and that excludes this one, going by why this one was
refused alone; None when it was refused for another reason."""


def _without_rivals(_name: str, _refusal: Refusal) -> None:
    """The root holds nothing that was built."""


@dataclass(frozen=True)
class Choice:
    """``requests`` can be installed together; ``omitted`` cannot be added, each with the reason."""

    requests: tuple[str, ...]
    omitted: tuple[tuple[str, str], ...] = ()


class NotInstallable(Exception):
    """One of the candidates cannot be installed even alone."""

    def __init__(self, name: str, refusal: Refusal) -> None:
        super().__init__(f"{name} cannot be installed: {refusal.line}")
        self.refusal = refusal


@dataclass(frozen=True)
class _Core:
    members: frozenset[str]
    line: str
    rival: str = ""


def greatest(
    candidates: Sequence[str], attempt: Attempt, first: Refusal | None = None, rival: Rival = _without_rivals
) -> Choice:
    """The greatest set of ``candidates`` that ``attempt`` does not refuse; among equals earlier candidates stay.

    ``first`` is the refusal of them all, where it is known already. A candidate that is refused alone is left out
    when it has a ``rival``. Raises NotInstallable when it has none.
    """
    cores: list[_Core] = []
    refusal = first or attempt(candidates)
    chosen = tuple(candidates)
    while refusal:
        cores.append(_core(chosen, refusal, attempt, rival))
        left_out = next(_hitting_sets(cores, candidates))
        chosen = tuple(name for name in candidates if name not in left_out)
        refusal = attempt(chosen) if chosen else None
    return Choice(chosen, tuple((name, _reason(name, chosen, cores)) for name in candidates if name not in chosen))


def _core(requests: Sequence[str], refusal: Refusal, attempt: Attempt, rival: Rival) -> _Core:
    """A group within ``requests`` that is refused while each of its proper subgroups, one member less, is not."""
    group = list(requests)
    if refusal.named and len(refusal.named) < len(group):
        narrower = attempt(refusal.named)
        if narrower:
            group, refusal = list(refusal.named), narrower
    for name in list(group):
        rest = [other for other in group if other != name]
        without = attempt(rest) if rest else None
        if without:
            group, refusal = rest, without
    if len(group) == 1:
        stays = rival(group[0], refusal)
        if stays is None:
            raise NotInstallable(group[0], refusal)
        return _Core(frozenset(group), refusal.line, stays)
    return _Core(frozenset(group), refusal.line)


def _hitting_sets(cores: Sequence[_Core], candidates: Sequence[str]) -> Iterator[frozenset[str]]:
    """Sets with a member of every core, smallest first, the latest candidates first among equals."""
    involved = [name for name in reversed(candidates) if any(name in core.members for core in cores)]
    for size in range(1, len(involved) + 1):
        for chosen in combinations(involved, size):
            if all(core.members.intersection(chosen) for core in cores):
                yield frozenset(chosen)


def _reason(name: str, chosen: Sequence[str], cores: Sequence[_Core]) -> str:
    own_cores = [core for core in cores if name in core.members]
    core = next((candidate for candidate in own_cores if candidate.members - {name} <= set(chosen)), own_cores[0])
    if core.rival:
        return f"cannot be installed together with {core.rival}, which the base has already: {core.line}"
    others = ", ".join(sorted(core.members - {name}))
    return f"cannot be installed together with {others}: {core.line}"
