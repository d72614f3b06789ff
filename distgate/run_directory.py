"""Where a run keeps what it made: one directory per run, and the address at which people reach it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True)
class RunDirectory:
    """A run's artifacts below ``root``; ``base_url`` is where ``root`` is served, empty when it is not."""

    root: Path
    base_url: str = ""

    def stage(self, name: str, *, fresh: bool = True) -> Path:
        """The directory of one stage, emptied first unless ``fresh`` is False: a retry starts anew."""
        path = self.root / name
        if fresh and path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def url(self, path: Path) -> str:
        """Where people open ``path``: an address when artifacts are served, else the path itself."""
        if not self.base_url:
            return str(path)
        return f"{self.base_url.rstrip('/')}/{quote(str(path.relative_to(self.root.parent)))}"

    def link(self, path: Path, text: str) -> str:
        """A markdown link to ``path``, or its path in code quotes."""
        return f"[{text}]({self.url(path)})" if self.base_url else f"{text}: `{path}`"

    def logs(self) -> list[Path]:
        """Everything below that is text for people, in order of the stages."""
        kinds = (".log", ".txt", ".yml", ".json", ".ks")
        found = (path for path in sorted(self.root.rglob("*")) if path.suffix in kinds and path.is_file())
        return [path for path in found if not path.is_symlink()]
