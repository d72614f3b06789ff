"""The flow hooks of every pipeline: a run sends its last message however it ends, and leaves no build behind."""

from __future__ import annotations

from typing import Any, TypedDict

from prefect.flows import FlowStateHook

from tasks.build import cancel_build
from tasks.run.stage import end_of_run

Hooks = list[FlowStateHook[..., Any]]


class RunHooks(TypedDict):
    """The hooks of a flow, by how its run ended."""

    on_completion: Hooks
    on_failure: Hooks
    on_cancellation: Hooks
    on_crashed: Hooks


RUN_HOOKS: RunHooks = {
    "on_completion": [end_of_run],
    "on_failure": [end_of_run],
    "on_cancellation": [end_of_run, cancel_build],
    "on_crashed": [end_of_run],
}
