"""One look of the reconciler, in a process of its own: it is a service, and no part of a run."""

from __future__ import annotations

import os
import sys

from prefect import get_run_logger, task

from distgate.errors import InfrastructureError
from distgate.process import run

#: Seconds; it asks Prefect for every run of every unanswered change.
SECONDS = 600.0
#: What the service says of what it mended, or could not.
_TOLD = (" WARNING ", " ERROR ")


@task(name="Reconcile once")
def reconcile_once() -> list[str]:
    """What the reconciler had to say: a line for each thing that it mended, or could not mend."""
    env = {name: value for name, value in os.environ.items() if name.startswith(("DISTGATE_", "PREFECT_"))}
    argv = [sys.executable, "-m", "services.reconciler", "--once"]
    ended = run(argv, timeout=SECONDS, env=env, error=InfrastructureError, hint="the ledger and Prefect must be up")
    lines = [line for line in ended.output.splitlines() if any(action in line for action in _TOLD)]
    for line in lines:
        get_run_logger().warning("%s", line)
    return lines
