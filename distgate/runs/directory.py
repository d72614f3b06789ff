"""The directory of a run's artifacts, and the address at which people reach it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

from distgate.files import remove_tree, walk
from distgate.text import inline, printable

#: Logs that a summary links to; the directory itself has them all.
MOST_LOGS = 200
_KINDS = (".log", ".txt", ".yml", ".json", ".ks")


@dataclass(frozen=True)
class RunDirectory:
    """A run's artifacts below ``root``; ``base_url`` is where ``root`` is served, empty when it is not."""

    root: Path
    base_url: str = ""

    def stage(self, name: str, *, fresh: bool = True) -> Path:
        """The directory of one stage, emptied first unless ``fresh`` is False: a retry starts anew."""
        path = self.root / name
        if fresh and path.exists():
            remove_tree(path)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def stage_again(self, name: str) -> Path:
        """The empty directory of one stage; that of an earlier try stays beside it, as ``NAME.try-1`` and on."""
        path = self.root / name
        if path.exists():
            number = next(number for number in count(1) if not (self.root / f"{name}.try-{number}").exists())
            old = path.rename(self.root / f"{name}.try-{number}")
            for entry in walk(old):
                if entry.name.endswith(".qcow2"):  # of a guest whose worker was killed: big, and no evidence
                    (old / entry.path).unlink()
        path.mkdir(parents=True)
        return path

    def url(self, path: Path) -> str:
        """Where people open ``path``: an address when artifacts are served, else the path itself."""
        if not self.base_url:
            return str(path)
        # Bytes, because a package's tests may leave a name that is no text.
        return f"{self.base_url.rstrip('/')}/{quote(os.fsencode(path.relative_to(self.root.parent)))}"

    def link(self, path: Path, text: str) -> str:
        """A markdown link to ``path``, or its path in code quotes."""
        return f"[{inline(text)}]({self.url(path)})" if self.base_url else f"{inline(text)}: `{printable(str(path))}`"

    def logs(self) -> list[Path]:
        """Text files for people, in order of the stages: MOST_LOGS at most, tests may leave any number."""
        paths = (entry.path for entry in walk(self.root) if entry.is_file)
        return [self.root / path for path in sorted(path for path in paths if path.suffix in _KINDS)[:MOST_LOGS]]
