"""Which directories of runs have expired, and what a clean-up freed, in a sentence."""

from __future__ import annotations

import re
from collections import Counter
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
    kinds = Counter(thing.kind for thing in freed)
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing"
    total = format_size(sum(thing.size for thing in freed))
    return f"{parts}: {total} of disk {'would be' if dry_run else 'were'} freed"


def expired_runs(ledger: Ledger, artifacts: Path, now: float, keep: float) -> list[Freed]:
    """The directories of runs below ``artifacts`` that ended more than ``keep`` seconds before ``now``.

    A run that the ledger does not know any more goes by its directory's age; one without an end stays, and so does
    one whose results a younger run has taken over. Only directories of runs are looked at.
    """
    paths = sorted(_run_directories(artifacts))
    ends = ends_of_runs(ledger, [path.name for path in paths])
    return [run for path in paths if (run := _expired(path, ends, now, keep)) is not None]


def expired_copies(ledger: Ledger, stored: Sequence[str], now: float, keep: float) -> list[Freed]:
    """The runs of ``stored``, IDs in an artifact store, that ended more than ``keep`` seconds before ``now``.

    One that the ledger does not know may be another ledger's, and stays.
    """
    ends = ends_of_runs(ledger, [run_id for run_id in stored if _RUN.fullmatch(run_id)])
    old = {run_id: now - ended for run_id, ended in ends.items() if ended is not None and now - ended >= keep}
    return [Freed("stored runs", run_id, f"its run ended {age / DAY:.0f} days ago") for run_id, age in old.items()]


def remove_runs(artifacts: Path, runs: Iterable[Freed]) -> None:
    """Remove what ``expired_runs`` found; what cannot be removed is there the next time."""
    for run in runs:
        remove_tree(artifacts / run.what, ignore_errors=True)


def _run_directories(artifacts: Path) -> Iterator[Path]:
    if artifacts.is_dir():
        yield from (path for path in artifacts.iterdir() if _RUN.fullmatch(path.name) and not path.is_symlink())


def _expired(run: Path, ends: Mapping[str, float | None], now: float, keep: float) -> Freed | None:
    ended = ends.get(run.name, run.stat().st_mtime)
    if ended is None or now - ended < keep:
        return None
    since = "its run ended" if run.name in ends else "no run in the ledger, last changed"
    return Freed("run directories", run.name, f"{since} {(now - ended) / DAY:.0f} days ago", disk_usage(run))
