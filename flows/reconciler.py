"""One pass of the reconciler by the clock, for the time in which its service does not run."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from distgate.settings import settings
from tasks.operations.clean_up import withdraw_abandoned_trees
from tasks.operations.reconcile import reconcile_once


@flow(name="reconciler", flow_run_name="one look of the reconciler")
def reconciler() -> State[Any]:
    """Start what accepted changes have no run, end what runs have died, and take back the trees that those left at a
    head; says how much there was to mend."""
    messages = reconcile_once()
    messages += withdraw_abandoned_trees(settings().site)
    return Completed(
        message=f"{len(messages)} things were mended or told of" if messages else "nothing was to be mended"
    )
