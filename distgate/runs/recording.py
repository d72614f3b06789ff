"""The parts of a run's record, from the results of its stages."""

from __future__ import annotations

from pathlib import Path

from pydantic_core import to_jsonable_python

from distgate.images.base import BaseImage, ComposedImage
from distgate.runners.session import JudgedSuite
from distgate.runs.record import BaseRecord, ComposeRecord, OmissionRecord, RerunRecord, SuiteRecord, TestRecord
from distgate.testing.verdict import worst_first

#: Tests of one suite in the record; a suite may print any number.
_MOST_TESTS = 2000


def compose_begun(base: BaseImage) -> ComposeRecord:
    """The record of an image that is about to be made on ``base``."""
    return ComposeRecord(base=BaseRecord.model_validate(to_jsonable_python(base)))


def compose_record(image: ComposedImage, base: BaseImage, root: Path) -> ComposeRecord:
    """The record of ``image``, made on ``base``, in the run's directory ``root``."""
    inside = image.path.is_relative_to(root)
    return ComposeRecord(
        base=compose_begun(base).base,
        way=image.way,
        driver=image.driver,
        kickstart_hash=image.kickstart_hash,
        image=str(image.path.relative_to(root) if inside else image.path),
        omitted=tuple(
            OmissionRecord(package=str(omission.package), reason=omission.reason) for omission in image.omitted
        ),
    )


def suite_record(judged: JudgedSuite, root: Path) -> SuiteRecord:
    """The record of a suite that ran in the directory ``root`` of a run."""
    verdict, rerun = judged.verdict, judged.rerun
    tests = worst_first(verdict.tests, _MOST_TESTS)
    return SuiteRecord(
        suite=judged.suite.name,
        kind=judged.suite.kind,
        verdict=verdict.verdict,
        blame=verdict.blame,
        evidence=verdict.evidence,
        details=verdict.details,
        tests=tuple(TestRecord.model_validate(test, from_attributes=True) for test in tests),
        directory=str(judged.directory.relative_to(root)),
        rerun=RerunRecord(words=rerun.finding, evidence=rerun.evidence) if rerun else None,
    )
