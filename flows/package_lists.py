"""The package lists of Atomic Host, made anew from the treefiles: on a schedule, or when somebody wants it."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from distgate.changes.package_lists import branches_refreshed
from tasks.operations.package_lists import lists_directory, refresh_list


@flow(name="package-lists", flow_run_name="package lists")
def package_lists(branches: list[str] | None = None, site: str | None = None) -> State[Any]:
    """Refresh the lists; a branch that cannot be keeps its list, and the other branches from nothing.

    Args:
        branches: The branches; by default those whose lists were refreshed before.
        site: The name of the block documents to work with; the worker's own by default.
    """
    wanted = branches or branches_refreshed(lists_directory())
    if not wanted:
        return Completed(message="no list was made from a treefile before: the parameter branches says which to make")
    done = [(branch, refresh_list(branch, site, return_state=True)) for branch in wanted]
    failed = [f"{branch}: {state.message}" for branch, state in done if not state.is_completed()]
    said = f"{len(wanted) - len(failed)} of {len(wanted)} package lists are made anew"
    return Failed(message=f"{said}; {'; '.join(failed)}") if failed else Completed(message=said)
