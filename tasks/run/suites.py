"""Suites on guests, as every stage that tests runs them: with this site's guests, and this deployment's limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blocks import GuestMachine
from distgate.errors import Blame
from distgate.images.base import BaseImage
from distgate.rpm.nevra import Nevra
from distgate.settings import settings
from distgate.steps import Progress
from distgate.testing.discovery import CLASSIC
from tasks.run.guests import ReservedGuests
from tasks.run.job import Job

if TYPE_CHECKING:
    from distgate.runners.session import JudgedSuite, SuiteSession
    from distgate.testing.verdict import SuiteVerdict


class JudgedSuites:
    """The verdicts of ``judged`` suites: the base of the results of stages that run suites."""

    judged: tuple[JudgedSuite, ...]

    @property
    def suites(self) -> tuple[SuiteVerdict, ...]:
        """The verdicts, in the order in which the suites ran."""
        return tuple(suite.verdict for suite in self.judged)

    @property
    def blame(self) -> Blame | None:
        """Who is to blame for the first suite that did not pass; None when all did."""
        return next((suite.blame for suite in self.suites if suite.verdict != "PASS"), None)


def suite_session(
    job: Job,
    base: BaseImage,
    image: Path,
    packages: Sequence[Nevra],
    progress: Progress,
    *,
    srpm: Path | None = None,
    tag: str = CLASSIC,
    variables: Mapping[str, str] | None = None,
) -> SuiteSession:
    """How suites are run on ``image``, which holds ``packages`` and ``base`` does not; the first guest of a failure
    is kept when the run asks for that. See runner_for for the rest."""
    from distgate.runners.session import SuiteSession

    guests = ReservedGuests(job)
    return SuiteSession(
        host=guests.host,
        base=base,
        image=image,
        packages=packages,
        runner_for=GuestMachine.of(job.site).suites(
            job.change.branch,
            roles_path=settings().roles_path,
            ansible=settings().ansible,
            srpm=srpm,
            tag=tag,
            variables=variables,
        ),
        boot_timeout=settings().boot_timeout,
        suite_timeout=settings().suite_timeout,
        tests_timeout=settings().tests_timeout,
        progress=progress,
        ended=guests.keep_failing,
    )


def write_junit(judged: Sequence[JudgedSuite], directory: Path) -> None:
    """Leave the verdicts as ``junit.xml`` in ``directory``."""
    from distgate.testing.junit import junit

    (directory / "junit.xml").write_text(junit([suite.verdict for suite in judged]), encoding="utf-8")


def stage_status(judged: Sequence[JudgedSuite]) -> str:
    """The status of a stage by its suites: SUCCESS or UNSTABLE. Raises TestsError or GaveUp when a suite could not
    be run."""
    from distgate.runners.session import failure_of, status_of

    status = status_of(judged)
    if status == "FAILURE":
        raise failure_of(judged)
    return status
