"""Base images are renewed ahead of the runs that need them: built, qualified, and only then current."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from distgate.settings import settings
from tasks.operations.clean_up import branches_with_bases, refresh_base


@flow(name="base-images", flow_run_name="base images")
def base_images(branches: list[str] | None = None, site: str | None = None) -> State[Any]:
    """Refresh the base images of branches on this worker's host; one that fails keeps the one it had.

    Args:
        branches: Which; by default the watched branches for which the store has a base.
        site: The name of the block documents to work with; the worker's own by default.
    """
    where = site or settings().site
    chosen = branches or branches_with_bases(where)
    done = [(branch, refresh_base(where, branch, return_state=True)) for branch in chosen]
    rows = [state.result() for _, state in done if state.is_completed()]
    rows += [{"branch": branch, "outcome": state.message or ""} for branch, state in done if not state.is_completed()]
    create_table_artifact(rows, key="base-images", description=f"Base images of {', '.join(chosen) or 'no branch'}")
    failed = [branch for branch, state in done if not state.is_completed()]
    sentence = f"{len(chosen) - len(failed)} of {len(chosen)} base images are current"
    return Failed(message=f"{sentence}; not {', '.join(failed)}") if failed else Completed(message=sentence)
