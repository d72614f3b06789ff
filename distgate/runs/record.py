"""The record of a run, ``run.json``: every input and every verdict, so that the run can be done again by hand.

Each stage adds its part. The file lies in the run's directory, with which it can be copied to another machine.
Readers ignore fields that they do not know.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from distgate.changes.change import Change
from distgate.errors import Blame, ConfigurationError, InfrastructureError
from distgate.files import RUN_RECORD, sha256_of
from distgate.guests.registry import HeldGuest
from distgate.pipelines import STAGES, Pipeline
from distgate.records import read_record, write_record
from distgate.rpm.nevra import Nevra, RpmFile

VERSION = 1
#: Python distributions whose version may decide how a run ends.
_DISTRIBUTIONS = ("distgate", "ansible-core", "ansible-runner", "tmt", "koji", "libvirt-python", "prefect")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class RpmRecord(_Record):
    """One RPM of the build: its file's name, the SHA-256 of its bytes, and the identity in its header."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    nevra: Nevra

    @field_validator("name")
    @classmethod
    def _is_a_file_name(cls, name: str) -> str:
        # It becomes a part of paths, and a record may come from anywhere.
        if name != os.path.basename(name) or not name.endswith(".rpm"):
            raise ValueError("it is not the name of an RPM file")
        return name


class UnitTestsRecord(_Record):
    """How %check ended (distgate.builds.unit_tests)."""

    status: str
    evidence: str = ""
    seconds: float | None = None


class BuildRecord(_Record):
    """The scratch build: its hub, its source and its packages; without RPMs it did not end well.

    ``srpm`` is the path of the source package relative to the run's directory, where one was made for Koji;
    ``original_nvr`` is the NVR that the spec file has in dist-git.
    """

    server: str
    topurl: str
    task_id: int
    source: str = Field(description="git+URL#REV, as Koji was given it")
    target: str = ""
    arch: str = "x86_64"
    srpm: str = ""
    srpm_sha256: str = ""
    nvr: str = Field("", pattern="^[^/]*$")
    original_nvr: str = ""
    unit_tests: UnitTestsRecord | None = None
    rpms: tuple[RpmRecord, ...] = ()
    packages: tuple[Nevra, ...] = Field((), description="The packages under test")

    @property
    def repository_url(self) -> str:
        """The address of the dist-git repository."""
        return self.source.removeprefix("git+").partition("#")[0]


class BaseRecord(_Record):
    """A base image as it was on the host of the run (distgate.images.base.BaseImage)."""

    path: str
    identity: str
    root_offset: int
    ssh_key: str
    repositories: tuple[str, ...] = ()


class OmissionRecord(_Record):
    """A package that was built and not put into the image."""

    package: str
    reason: str


class ComposeRecord(_Record):
    """The image: how and on what base it was made, and its path relative to the run's directory.

    Without an image the compose did not end well.
    """

    base: BaseRecord
    way: str = ""
    driver: str = ""
    kickstart_hash: str = ""
    image: str = ""
    omitted: tuple[OmissionRecord, ...] = ()


class SmokeRecord(_Record):
    """The smoke test's result."""

    passed: bool
    sentence: str


class RerunRecord(_Record):
    """The result of running a failing suite again, and without the change (distgate.testing.reruns)."""

    words: str
    evidence: str


class TestRecord(_Record):
    """One test of a suite; ``logs`` are relative to the suite's artifacts, and a stranger's text."""

    __test__ = False  # not a pytest class

    name: str
    result: str
    note: str = ""
    logs: tuple[str, ...] = ()


class SuiteRecord(_Record):
    """The verdict on one suite. ``directory`` is relative to the run's; its ``artifacts`` are the suite's files."""

    suite: str
    kind: str
    verdict: str
    blame: Blame | None = None
    evidence: str = ""
    details: str = ""
    tests: tuple[TestRecord, ...] = ()
    directory: str = ""
    rerun: RerunRecord | None = None


class TestsRecord(_Record):
    """The suites and the verdict on each; ``reason`` says why there are none."""

    __test__ = False  # not a pytest class

    kind: str | None = None
    suites: tuple[SuiteRecord, ...] = ()
    reason: str = ""


class VerdictRecord(_Record):
    """The verdict on the run: SUCCESS, UNSTABLE, FAILURE or ABORTED."""

    status: str
    sentence: str
    blame: str = ""


class RunRecord(_Record):
    """The inputs and verdicts of one run; a part that is None was not reached."""

    version: int = VERSION
    run_id: str
    build_id: str
    site: str
    change: Change
    pipeline: Pipeline = "allpackages"
    tools: dict[str, str] = Field(default_factory=dict)
    build: BuildRecord | None = None
    compose: ComposeRecord | None = None
    smoke: SmokeRecord | None = None
    tests: TestsRecord | None = None
    held: HeldGuest | None = None
    verdict: VerdictRecord | None = None

    @field_validator("version")
    @classmethod
    def _is_known(cls, version: int) -> int:
        if version > VERSION:
            raise ValueError(f"it was written by a newer distgate; this one reads version {VERSION}")
        return version

    @field_validator("change", mode="before")
    @classmethod
    def _without_later_fields(cls, change: Any) -> Any:
        # Change itself refuses unknown fields, for it faces the bus; a record only grows.
        fields = Change.model_fields
        return {name: change[name] for name in change if name in fields} if isinstance(change, dict) else change


@dataclass(frozen=True)
class RunRecordFile:
    """The record on disk. One process writes it, step by step; readers see a whole one at any moment."""

    path: Path

    def begin(
        self, run_id: str, build_id: str, site: str, change: Change, pipeline: Pipeline = "allpackages"
    ) -> RunRecord:
        """Start the record of a run. A retry of it keeps the parts of its earlier stages, but for the verdict."""
        record = RunRecord(
            run_id=run_id, build_id=build_id, site=site, change=change, pipeline=pipeline, tools=tool_versions()
        )
        try:
            earlier = load(self.path)
        except ConfigurationError:  # there is none yet, or it is damaged
            return self._save(record)
        if earlier.run_id != run_id or earlier.change != change:
            return self._save(record)
        parts = {name: getattr(earlier, name) for stage in STAGES[pipeline].values() for name in stage.records}
        return self._save(record.model_copy(update=parts))

    def update(self, **parts: _Record | HeldGuest | None) -> RunRecord:
        """Add or replace parts of the record, such as ``update(build=...)``.

        Raises ConfigurationError when the file cannot be read, InfrastructureError when it cannot be written.
        """
        return self._save(load(self.path).model_copy(update=parts))

    def read(self) -> RunRecord:
        """The record as it is now; see ``load``."""
        return load(self.path)

    def _save(self, record: RunRecord) -> RunRecord:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_record(self.path, record)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {self.path}: {error.strerror}", hint="is the disk full?"
            ) from error
        return record


def load(path: Path) -> RunRecord:
    """The record in the file ``path``. Raises ConfigurationError that names the field which is wrong."""
    try:
        return read_record(path, RunRecord, hint="see docs/reproduce.md")
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}", hint=f"a run's directory holds a {RUN_RECORD}"
        ) from error


def record_rpms(rpms: Iterable[RpmFile]) -> tuple[RpmRecord, ...]:
    """The records of RPMs on disk."""
    return tuple(RpmRecord(name=rpm.path.name, sha256=sha256_of(rpm.path), nevra=rpm.nevra) for rpm in rpms)


def tool_versions() -> dict[str, str]:
    """The versions of this host's tools that may decide how a run ends."""
    versions = {"python": platform.python_version(), "kernel": platform.release(), "host": platform.node()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
