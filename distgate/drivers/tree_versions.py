"""The versions of a branch's trees: a number behind the release's prefix, which no two trees ever share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path


class TreeVersions:
    """Remembers in the file ``path`` the last number that was published under each prefix."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def next(self, prefix: str, known: Iterable[str]) -> str:
        """A version that is after every published one, and after those in ``known``."""
        return next_version(prefix, [f"{prefix}.{self._read().get(prefix, 0)}", *known])

    def publish(self, version: str) -> None:
        """Note that a tree with this version is about to be published: the version is never given out again."""
        prefix, _, number = version.rpartition(".")
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps(self._read() | {prefix: int(number)}))
        draft.replace(self._path)

    def remembers(self) -> bool:
        """Whether there is such a file; trees that are older than it have only their own versions."""
        return self._path.exists()

    def _read(self) -> dict[str, int]:
        try:
            return {str(prefix): int(number) for prefix, number in json.loads(self._path.read_text()).items()}
        except FileNotFoundError:
            return {}


def next_version(prefix: str, before: Iterable[str]) -> str:
    """The version after all of ``before``: the highest number that follows ``prefix``, and one more."""
    found = (re.fullmatch(rf"{re.escape(prefix)}\.(\d+)", version) for version in before)
    return f"{prefix}.{max((int(one[1]) for one in found if one), default=0) + 1}"
