"""A new run that begins in the middle: which results of an earlier run it takes, and what it knows by them.

The results themselves lie in Prefect's result storage, under the run that made them and the task's name. The new run
records in the ledger, stage by stage, whose they are; a stage whose result is gone is done again.
"""

from __future__ import annotations

from collections.abc import Sequence

from distgate.errors import ConfigurationError
from distgate.ledger.runs import Run, RunFacts
from distgate.pipelines import STAGES, Pipeline


def stages_before(pipeline: Pipeline, start_from: str) -> tuple[str, ...]:
    """The stages whose results are taken by a run that starts at ``start_from``, a topic's suffix.

    Raises ConfigurationError for one that the pipeline does not have.
    """
    order = [suffix for suffix in STAGES[pipeline] if suffix]
    if start_from not in order:
        raise ConfigurationError(f"there is no stage {start_from!r}", hint=f"start_from is one of {', '.join(order)}")
    return tuple(order[: order.index(start_from)])


def earlier_run(runs: Sequence[Run], run_id: str) -> Run:
    """The latest of ``runs`` (oldest first) but ``run_id`` itself. Raises ConfigurationError when there is none."""
    others = [run for run in runs if run.run_id != run_id]
    if not others:
        raise ConfigurationError(
            "no run of this change was there before: there is no result to start from",
            hint="leave start_from out to begin at the beginning",
        )
    return others[-1]


def taken_over(earlier: Run, start_from: str) -> RunFacts:
    """The facts that a run knows from the beginning: whose results it takes, and the facts of those stages."""
    before = stages_before(earlier.pipeline, start_from)
    facts = earlier.facts.flat()
    names = [name for suffix in before for name in STAGES[earlier.pipeline][suffix].facts]
    return RunFacts(
        **{name: facts[name] for name in names if name in facts},
        statuses={suffix: status for suffix, status in earlier.facts.statuses.items() if suffix in before},
        results={suffix: origin_of(earlier.facts, suffix, earlier.run_id) for suffix in before},
    )


def origins(earlier: Run, start_from: str) -> list[str]:
    """The runs whose files a run needs that starts in the middle: ``earlier``, and those that it took results of."""
    before = stages_before(earlier.pipeline, start_from)
    return sorted({earlier.run_id, *(origin_of(earlier.facts, suffix, earlier.run_id) for suffix in before)})


def origin_of(facts: RunFacts, suffix: str, run_id: str) -> str:
    """The run that made a stage's result: an earlier one that was taken over, or ``run_id`` itself."""
    return facts.results.get(suffix, run_id)
