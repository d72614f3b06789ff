"""The job: the argument that every stage of a run takes."""

from __future__ import annotations

from dataclasses import dataclass

from distgate.changes.change import Change
from distgate.files import RUN_RECORD
from distgate.pipelines import Pipeline
from distgate.runs.directory import RunDirectory
from distgate.runs.record import RunRecordFile


@dataclass(frozen=True)
class Job:
    """What every stage of one run shares: the change, the pipeline, the site it works with, and its artifacts.

    ``reserve`` is for how many minutes the guest of a failure is held; ``rerun_failed`` asks for blame on red;
    ``koji_task`` is the build to take instead of a new one.
    """

    run_id: str
    attempt: int
    change: Change
    site: str
    run_dir: RunDirectory
    reserve: int = 0
    rerun_failed: bool = False
    pipeline: Pipeline = "allpackages"
    koji_task: int | None = None

    @property
    def holder(self) -> str:
        """Whom leases and locks of this run are for, as others who wait read it."""
        return f"run {self.run_id}, {self.change.title}"

    @property
    def record(self) -> RunRecordFile:
        """Where it is written down what the run would need to be done again by hand."""
        return RunRecordFile(self.run_dir.root / RUN_RECORD)
