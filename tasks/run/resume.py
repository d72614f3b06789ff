"""A run that starts in the middle takes the results of the run before it."""

from __future__ import annotations

from prefect import get_run_logger

from distgate.changes.change import Change
from distgate.errors import ConfigurationError
from distgate.files import RUN_RECORD
from distgate.ledger.ledger import Ledger
from distgate.ledger.resume import earlier_run, origins, stages_before, taken_over
from distgate.ledger.runs import Run
from distgate.pipelines import STAGES, Pipeline
from distgate.runs.record import RunRecordFile
from tasks.run.artifacts import artifacts_dir, download


def find_earlier(ledger: Ledger, change: Change, pipeline: Pipeline, start_from: str, run_id: str, site: str) -> Run:
    """The run whose results a new one takes. Raises ConfigurationError when there is none, when its artifacts are
    neither on this host nor in the site's store, or for a stage that does not exist; nothing is claimed before."""
    stages_before(pipeline, start_from)
    earlier = earlier_run(ledger.runs_of(change.key, pipeline), run_id)
    for run in origins(earlier, start_from):
        download(site, run)
    if not _record_of(earlier).path.is_file():
        raise ConfigurationError(
            f"the artifacts of run {earlier.run_id} are not here (any more)",
            hint="workers that resume each other's runs need an artifact store, or share DISTGATE_ARTIFACTS_DIR",
        )
    return earlier


def take_over(ledger: Ledger, run_id: str, record: RunRecordFile, earlier: Run, start_from: str) -> None:
    """Record the facts and results of the earlier run as this one's; a retry keeps those of the first attempt."""
    this_run = ledger.run(run_id)
    if this_run is not None and this_run.facts.results:
        return
    facts = taken_over(earlier, start_from)
    before = stages_before(earlier.pipeline, start_from)
    earlier_record = _record_of(earlier).read()
    names = [name for suffix in before for name in STAGES[earlier.pipeline][suffix].records]
    record.update(**{name: getattr(earlier_record, name) for name in names})
    ledger.record_facts(run_id, facts)
    get_run_logger().info("starting from %s with the results of run %s: %s", start_from, earlier.run_id, before)


def _record_of(run: Run) -> RunRecordFile:
    return RunRecordFile(artifacts_dir() / run.run_id / RUN_RECORD)
