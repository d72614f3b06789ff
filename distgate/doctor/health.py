"""The health of a worker's host as it stands in a file: whether it may take runs, why, and since when.

The worker itself or a health run writes it; the worker reads it each time it asks for runs.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from distgate.doctor.report import Report
from distgate.errors import ConfigurationError
from distgate.records import read_record, write_record

#: The work queue of one host begins like this: what must run on that very host waits in it.
QUEUE_PREFIX = "host-"
#: What asks every host for its health waits here: any worker takes it, fit or not (deployment worker-health/hosts).
ASKING_QUEUE = "health"


@dataclass(frozen=True)
class Health:
    """``fit`` says whether runs may be taken; ``at`` is when it was checked, in seconds of the epoch."""

    fit: bool
    sentence: str
    at: float


def queue_of(host: str) -> str:
    """The work queue of a host, with what Prefect refuses in names taken out."""
    return QUEUE_PREFIX + re.sub(r"[^A-Za-z0-9._-]", "-", host)


def host_of(queue: str) -> str | None:
    """The host whose own queue this is; None for a shared one."""
    return queue.removeprefix(QUEUE_PREFIX) if queue.startswith(QUEUE_PREFIX) else None


def health_file(state: Path, host: str) -> Path:
    """Where the health of the worker called ``host`` stands."""
    return state / f"{queue_of(host)}.json"


def needed_of(report: Report, needed: Collection[str]) -> Report:
    """The findings that a worker depends on: those of the checks ``needed``, all of them when it is empty."""
    return Report(tuple(finding for finding in report.findings if not needed or finding.name in needed))


def health_of(report: Report, at: float) -> Health:
    """The health by a doctor's report; each failed check is named with its detail."""
    if report.ok:
        return Health(True, report.sentence(), at)
    failures = "; ".join(f"{finding.name}: {finding.detail}" for finding in report.failed)
    return Health(False, f"{len(report.failed)} of {len(report.findings)} checks failed: {failures}", at)


def read_health(path: Path) -> Health | None:
    """The health in the file; None when there is none yet, or it cannot be read."""
    try:
        return read_record(path, Health)
    except (OSError, ConfigurationError):
        return None


def write_health(path: Path, health: Health) -> None:
    """Write it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, health)
