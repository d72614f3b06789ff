"""A flow as Prefect's documentation shows it: as many tasks as the pipeline has, and nothing in them."""

from __future__ import annotations

from prefect import flow, task


@task
def first(change: dict[str, str]) -> dict[str, str]:
    """A task that does nothing."""
    return change


@task
def work(change: dict[str, str], number: int) -> int:
    """A task that does nothing, either."""
    return number


@flow(name="bare")
def bare(change: dict[str, str]) -> int:
    """Six tasks, one after another."""
    claimed = first(change)
    return sum(work(claimed, number) for number in range(5))
