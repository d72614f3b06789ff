"""What a run's page reports: the end of each stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from distgate.errors import Blame, Cancelled, DistgateError
from distgate.pipelines import FAILURES, UNSTABLE
from distgate.runs.record import VerdictRecord
from tasks.build import BuiltPackage
from tasks.functional import Plan, TestReport
from tasks.run.job import Job
from tasks.run.stage import StageResult


@dataclass
class Report(ABC):
    """What the stages of one run have returned so far; each pipeline adds its own."""

    job: Job
    built: BuiltPackage | None = None
    plan: Plan | None = None
    verdict: TestReport | None = None
    results: dict[str, StageResult] = field(default_factory=dict)
    """Results of further stages, by the name that the page gives them: each has a status, a sentence and a blame."""
    error: BaseException | None = None

    def judged(self) -> list[StageResult]:
        """The results that have a status of their own, in the order of the stages."""
        return [*([self.verdict] if self.verdict else []), *self.results.values()]

    @abstractmethod
    def passed(self) -> str:
        """What was found to work, in one sentence."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[str, str]]:
        """The pipeline's own rows of the summary's table: a name, and markdown."""

    def sections(self) -> Iterator[str]:
        """The pipeline's own parts of the summary, as markdown."""
        yield from ()

    @property
    def status(self) -> str:
        if self.error is not None:
            return "FAILURE" if isinstance(self.error, Exception) and not self.cancelled else "ABORTED"
        return "UNSTABLE" if self._bad() else "SUCCESS"

    @property
    def cancelled(self) -> bool:
        return isinstance(self.error, Cancelled)

    def sentence(self) -> str:
        """The verdict in one sentence, with who is to blame when it is not SUCCESS."""
        return f"{self.job.change.title}: {self.reason}"

    @property
    def blame(self) -> Blame | None:
        """Who is to blame for a verdict that is not SUCCESS."""
        if self.error is None:
            bad = self._bad()
            return bad[0].blame if bad else None
        if isinstance(self.error, DistgateError):
            return self.error.blame
        return "bug" if isinstance(self.error, Exception) else "cancelled"

    @property
    def title(self) -> str:
        """The verdict and who is to blame, for a list of many."""
        return f"{self.status}: {self.job.change.title}" + (f" (blame: {self.blame})" if self.blame else "")

    def record(self) -> VerdictRecord:
        """The verdict as the run record has it."""
        return VerdictRecord(status=self.status, sentence=self.sentence(), blame=self.blame or "")

    @property
    def skipped(self) -> str:
        """Why the functional tests were skipped."""
        return self.plan.tests.reason if self.plan else ""

    def state(self) -> State[Any]:
        """The state that Prefect shows: Completed, Unstable when tests ran and some did not pass, or one of FAILURES.

        The name says it and no tag does: a tag would outlive a retry.
        """
        if isinstance(self.error, DistgateError):
            return Failed(name=FAILURES.get(self.error.blame), message=self.sentence())
        if self.status == "UNSTABLE":
            return Completed(name=UNSTABLE, message=self.sentence())
        return Completed(message=self.sentence())

    @property
    def reason(self) -> str:
        """``sentence`` without the name of the commit."""
        if isinstance(self.error, DistgateError):
            return f"{self.error.message} (blame: {self.error.blame})"
        if isinstance(self.error, Exception):
            return f"{type(self.error).__name__}: {self.error} (a bug of distgate)"
        if self.error is not None:
            return f"cancelled, or its process was told to end ({type(self.error).__name__})"
        bad = self._bad()
        return (
            bad[0].sentence
            if bad
            else "; ".join([self.passed(), *(result.sentence for result in self.results.values())])
        )

    def _bad(self) -> list[StageResult]:
        return [result for result in self.judged() if result.status != "SUCCESS"]
