"""One pass of the reconciler, in a process of its own: it is a service, and no part of a run."""

from __future__ import annotations

import os
import sys

from prefect import get_run_logger, task

from distgate.errors import InfrastructureError
from distgate.process import run

#: Seconds; it asks Prefect for every run of every unanswered change.
SECONDS = 600.0
#: The levels at which the service logs what it repaired, or could not.
_LEVELS = (" WARNING ", " ERROR ")


@task(name="Reconcile once")
def reconcile_once() -> list[str]:
    """Run the reconciler once; returns a line for each thing that it repaired, or could not."""
    env = {name: value for name, value in os.environ.items() if name.startswith(("DISTGATE_", "PREFECT_"))}
    argv = [sys.executable, "-m", "services.reconciler", "--once"]
    ended = run(argv, timeout=SECONDS, env=env, error=InfrastructureError, hint="the ledger and Prefect must be up")
    lines = [line for line in ended.output.splitlines() if any(level in line for level in _LEVELS)]
    for line in lines:
        get_run_logger().warning("%s", line)
    return lines
