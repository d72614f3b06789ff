"""The package lists of Atomic Host, made anew from the treefiles: on a schedule, or on demand."""

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
    chosen = branches or branches_refreshed(lists_directory())
    if not chosen:
        return Completed(message="no list was made from a treefile before: the parameter branches says which to make")
    done = [(branch, refresh_list(branch, site, return_state=True)) for branch in chosen]
    failed = [f"{branch}: {state.message}" for branch, state in done if not state.is_completed()]
    sentence = f"{len(chosen) - len(failed)} of {len(chosen)} package lists are made anew"
    return Failed(message=f"{sentence}; {'; '.join(failed)}") if failed else Completed(message=sentence)
