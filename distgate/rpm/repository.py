"""Package repositories: the metadata that lets dnf install from a directory."""

from __future__ import annotations

from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.process import run

_SECONDS = 300.0


def make_repository(directory: Path) -> None:
    """Write ``repodata`` for the RPMs in ``directory``, replacing what is there; source packages are left out.

    Raises InfrastructureError with createrepo_c's output.
    """
    options = ["--quiet", "--excludes", "*.src.rpm", "--general-compress-type", "gz"]
    run(
        ["createrepo_c", *options, directory],
        timeout=_SECONDS,
        error=InfrastructureError,
        hint="is a file in the directory no RPM?",
    )
