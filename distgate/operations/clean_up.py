"""Which directories of runs have had their time, and what a clean-up says that it freed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.files import disk_usage, remove_tree
from distgate.ledger.ledger import Ledger
from distgate.ledger.run_ends import ends_of_runs
from distgate.text import format_size

DAY = 86400.0
_RUN = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Freed:
    """One thing that went, or would go: what kind of thing, which, why, and the bytes of disk that it took."""

    kind: str
    what: str
    why: str
    size: int = 0

    def row(self) -> dict[str, str]:
        """The line of the table that people see."""
        return {
            "kind": self.kind,
            "what": self.what,
            "size": format_size(self.size) if self.size else "",
            "why": self.why,
        }


def freed_sentence(freed: Sequence[Freed], dry_run: bool) -> str:
    """A clean-up in a line."""
    kinds = dict.fromkeys(one.kind for one in freed)
    parts = ", ".join(f"{sum(one.kind == kind for one in freed)} {kind}" for kind in kinds) or "nothing"
    total = format_size(sum(one.size for one in freed))
    return f"{parts}: {total} of disk {'would be' if dry_run else 'were'} freed"


def expired_rooms(ledger: Ledger, artifacts: Path, now: float, keep: float) -> list[Freed]:
    """The directories of runs below ``artifacts`` that ended more than ``keep`` seconds before ``now``.

    A run that the ledger does not know any more goes by its directory's age; one without an end stays, and so does
    one whose results a younger run has taken over. What is no run's directory is nobody's business here.
    """
    rooms = sorted(_rooms(artifacts))
    ends = ends_of_runs(ledger, [room.name for room in rooms])
    return [one for room in rooms if (one := _expired(room, ends, now, keep)) is not None]


def expired_copies(ledger: Ledger, kept: Sequence[str], now: float, keep: float) -> list[Freed]:
    """The runs of ``kept``, IDs in an artifact store, that ended more than ``keep`` seconds before ``now``.

    One that the ledger does not know may be another ledger's, and stays.
    """
    ends = ends_of_runs(ledger, [run_id for run_id in kept if _RUN.fullmatch(run_id)])
    old = {run_id: now - ended for run_id, ended in ends.items() if ended is not None and now - ended >= keep}
    return [Freed("stored runs", run_id, f"its run ended {age / DAY:.0f} days ago") for run_id, age in old.items()]


def remove_rooms(artifacts: Path, rooms: Iterable[Freed]) -> None:
    """Remove what ``expired_rooms`` found; what cannot be removed is there the next time."""
    for one in rooms:
        remove_tree(artifacts / one.what, ignore_errors=True)


def _rooms(artifacts: Path) -> Iterator[Path]:
    if artifacts.is_dir():
        yield from (path for path in artifacts.iterdir() if _RUN.fullmatch(path.name) and not path.is_symlink())


def _expired(room: Path, ends: Mapping[str, float | None], now: float, keep: float) -> Freed | None:
    ended = ends.get(room.name, room.stat().st_mtime)
    if ended is None or now - ended < keep:
        return None
    known = "its run ended" if room.name in ends else "no run in the ledger, last changed"
    return Freed("run directories", room.name, f"{known} {(now - ended) / DAY:.0f} days ago", disk_usage(room))
