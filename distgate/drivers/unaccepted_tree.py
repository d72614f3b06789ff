"""The note of a tree at the head that nobody has accepted: it outlives whoever was to test it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Unaccepted:
    """The tree whose tests have not ended: its commit, where the ref was before, and for whom it was made (a run)."""

    rev: str
    parent: str | None
    holder: str = ""


class UnacceptedTree:
    """The note in the file ``path``; it is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Unaccepted | None:
        """What it says; None when every tree is accepted or withdrawn."""
        try:
            facts = json.loads(self._path.read_text())
        except FileNotFoundError:
            return None
        return Unaccepted(facts["rev"], facts["parent"], facts.get("holder", ""))

    def write(self, tree: Unaccepted) -> None:
        """Note a tree in the place of any other."""
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(tree)))
        draft.replace(self._path)

    def remove(self) -> None:
        """Forget it: it was accepted or withdrawn."""
        self._path.unlink(missing_ok=True)
