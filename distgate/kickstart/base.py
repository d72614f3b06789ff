"""What builds a whole image from a kickstart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from distgate.steps import Progress, Step


@dataclass(frozen=True)
class BuiltImage:
    """A whole image made from a kickstart: a standalone bootable qcow2, its builder's log, and each step's time."""

    path: Path
    log: Path
    steps: tuple[Step, ...] = ()


class ImageBuilder(Protocol):
    """Makes a bootable image from nothing but a kickstart (the ``full`` way)."""

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        """Build from the flattened text ``kickstart`` and write the qcow2 ``into``; logs stay beside it.

        ``name`` and ``release`` ("rawhide", "44") describe the image to the builder. Raises PackageError when the
        packages under test keep it from being built, InfrastructureError (TimedOut after ``timeout`` seconds, or
        when the builder shows no progress) for everything else; ``into`` is absent after a failure.
        """
