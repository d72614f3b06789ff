"""Removes what has expired: artifacts, results, ledger rows, base images, tree commits, guests of no run."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from distgate.operations.clean_up import Freed, freed_sentence
from distgate.settings import settings
from tasks.operations.clean_up import (
    end_guests,
    forget_runs,
    prune_images,
    prune_trees,
    remove_artifacts,
    remove_results,
    remove_stored,
)


@flow(name="clean-up", flow_run_name="clean-up")
def clean_up(dry_run: bool = False, site: str | None = None) -> State[Any]:
    """Free disk on this worker's host, and say what was freed; what fails does not keep the rest from it.

    Args:
        dry_run: Whether nothing is removed: the table says what would be.
        site: The name of the block documents to work with; the worker's own by default.
    """
    where = site or settings().site
    done: list[State[list[Freed]]] = [
        end_guests(where, dry_run, return_state=True),
        remove_artifacts(dry_run, return_state=True),
        remove_stored(where, dry_run, return_state=True),
        remove_results(dry_run, return_state=True),
        forget_runs(dry_run, return_state=True),
        prune_images(where, dry_run, return_state=True),
        prune_trees(where, dry_run, return_state=True),
    ]
    freed = [removed for state in done if state.is_completed() for removed in state.result()]
    sentence = freed_sentence(freed, dry_run)
    create_table_artifact([removed.row() for removed in freed], key="clean-up", description=sentence)
    failed = [state.message or "" for state in done if not state.is_completed()]
    return Failed(message=f"{sentence}; {'; '.join(failed)}") if failed else Completed(message=sentence)
