"""The packages of an OSTree commit, from the RPM database that is part of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.ostree.repository import OstreeRepository
from distgate.process import run
from distgate.rpm.nevra import QUERY, Nevra

#: rpm-ostree's place first, which in other trees is a link.
_PLACES = ("/usr/share/rpm", "/usr/lib/sysimage/rpm")


def installed_in_commit(repository: OstreeRepository, rev: str) -> tuple[Nevra, ...]:
    """What ``rev`` has installed, sorted. Raises InfrastructureError when it has no RPM database."""
    with tempfile.TemporaryDirectory(prefix="distgate-rpmdb-") as name:
        for number, directory in enumerate(_PLACES):
            database = Path(name) / str(number)
            if repository.checkout(rev, directory, database):
                return _read(database)
    raise InfrastructureError(f"commit {rev[:12]} has no RPM database", hint=f"looked at {' and '.join(_PLACES)}")


def _read(database: Path) -> tuple[Nevra, ...]:
    query = run(
        ["rpm", "--dbpath", database, "-qa", "--qf", QUERY], timeout=120, split_errors=True, error=InfrastructureError
    )
    lines = [line for line in query.output.splitlines() if line and not line.startswith("gpg-pubkey|")]
    return tuple(sorted(map(Nevra.parse, lines)))
