"""One look of the reconciler by the clock, for the time in which its service does not run."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.reconcile import reconcile_once


@flow(name="reconciler")
def reconciler() -> State[Any]:
    """Start what accepted changes have no run, and end what runs have died; says how much there was to mend."""
    said = reconcile_once()
    return Completed(message=f"{len(said)} things were mended or told of" if said else "nothing was to be mended")
