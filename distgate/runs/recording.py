"""What the capsule says of what the drivers made and saw."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from distgate.images.base import BaseImage, ComposedImage
from distgate.runners.session import JudgedSuite
from distgate.runs.record import BaseRecord, ComposeRecord, OmissionRecord, RerunRecord, SuiteRecord, TestRecord
from distgate.testing.verdict import worst_first

#: Tests of one suite that are written down; a suite may print any number.
_MOST_TESTS = 2000


def compose_begun(base: BaseImage) -> ComposeRecord:
    """The record of an image that is about to be made on ``base``."""
    known = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(base).items()}
    return ComposeRecord(base=BaseRecord.model_validate(known))


def compose_record(image: ComposedImage, base: BaseImage, root: Path) -> ComposeRecord:
    """The record of ``image``, made on ``base``, in the run's directory ``root``."""
    inside = image.path.is_relative_to(root)
    made = {
        "way": image.way,
        "driver": image.driver,
        "kickstart_hash": image.kickstart_hash,
        "image": str(image.path.relative_to(root) if inside else image.path),
        "omitted": tuple(OmissionRecord(package=str(one.package), reason=one.reason) for one in image.omitted),
    }
    return compose_begun(base).model_copy(update=made)


def suite_record(one: JudgedSuite, root: Path) -> SuiteRecord:
    """The record of a suite that ran in the directory ``root`` of a run."""
    seen, rerun = one.verdict, one.rerun
    tests = [
        TestRecord(name=test.name, result=test.result, note=test.note, logs=test.logs)
        for test in worst_first(seen.tests, _MOST_TESTS)
    ]
    return SuiteRecord(
        suite=one.suite.name,
        kind=one.suite.kind,
        verdict=seen.verdict,
        blame=seen.blame,
        evidence=seen.evidence,
        details=seen.details,
        tests=tuple(tests),
        directory=str(one.directory.relative_to(root)),
        rerun=RerunRecord(words=rerun.words, evidence=rerun.evidence) if rerun else None,
    )
