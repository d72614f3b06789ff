"""The inputs of a run, brought together again: from its directory, else from the sources of the run itself.

Each is checked against the run's record, and differences are reported.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from distgate.base_images.entries import RECORD
from distgate.builds.base import BuildHub
from distgate.builds.checkout import checkout
from distgate.builds.koji import KojiClient, KojiProfile
from distgate.changes.change import Change
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.files import remove_tree, sha256_of
from distgate.images.base import BaseImage, read_base
from distgate.records import from_json
from distgate.rpm.repository import make_repository
from distgate.runs.record import BaseRecord, BuildRecord, RpmRecord, RunRecord
from distgate.steps import Progress

OnDifference = Callable[[str], None]
"""Receives a sentence about an input that is not the recorded one."""


@dataclass(frozen=True)
class RecordedInputs:
    """The packages, files and base image of the run in ``directory``; ``differs`` gets each that is not the same."""

    record: RunRecord
    directory: Path
    progress: Progress
    differs: OnDifference

    def packages(self, into: Path, build: BuildRecord) -> None:
        """Fill ``into`` with the build's RPMs and their repository metadata.

        Those of the run's directory are taken where their SHA-256 is the recorded one, all others from the Koji task.
        Raises InfrastructureError when one cannot be had.
        """
        into.mkdir(parents=True)
        missing = [rpm for rpm in build.rpms if not self._copied(rpm, into)]
        if missing:
            names = ", ".join(rpm.name for rpm in missing)
            self.progress(f"not in {self.directory}, or not the same: {names}; asking Koji task {build.task_id}")
            self._download(missing, into, build)
        make_repository(into)
        count = len(build.rpms)
        self.progress(f"{count} RPMs, {count - len(missing)} of them from the run's directory")

    def checkout(self, into: Path, build: BuildRecord | None) -> Path:
        """The commit's files in ``into``: from the run's own checkout, else from dist-git."""
        change = self.record.change
        repository = self.directory / "checkout" / change.repo / ".git"
        if repository.is_dir():
            try:
                return _from_copy(repository, change, into)
            except DistgateError as error:
                self.progress(f"the run's own checkout cannot be used: {error.message}")
        if build is None:
            raise ConfigurationError("the run did not get as far as its sources")
        self.progress(f"fetching {change.rev[:7]} from {build.repository_url}")
        return checkout(build.repository_url, change.rev, into)

    def base(self, recorded: BaseRecord | None, stores: Sequence[Path], override: Path | None) -> BaseImage:
        """The base image: that of ``override`` (a record, base.json), else the recorded one, at its old path or in
        one of the image stores ``stores``. Raises ConfigurationError when this machine does not have it."""
        if override is not None:
            base = _read_base(override)
            if recorded is None or base.identity != recorded.identity:
                self.differs(f"the base image is {base.identity}, not {recorded.identity if recorded else 'known'}")
            return base
        if recorded is None:
            raise ConfigurationError(
                "the run ended before it had a base image", hint="name one with --base RECORD.json"
            )
        images = [from_json(recorded.model_dump_json(), BaseImage, "the recorded base image")]
        records = [store / "bases" / recorded.identity / RECORD for store in stores]
        images += [_read_base(record) for record in records if record.is_file()]
        for base in images:
            if base.path.is_file() and os.access(base.ssh_key, os.R_OK):
                return base
        raise ConfigurationError(
            f"base image {recorded.identity} is not on this machine, or its ssh key {recorded.ssh_key} is not",
            hint="copy it to its old path, or name another with --base RECORD.json (see `distgate images list`)",
        )

    def _copied(self, rpm: RpmRecord, into: Path) -> bool:
        copy = self.directory / "build" / rpm.name
        if not copy.is_file() or sha256_of(copy) != rpm.sha256:
            return False
        shutil.copyfile(copy, into / rpm.name)
        return True

    def _download(self, missing: list[RpmRecord], into: Path, build: BuildRecord) -> None:
        fetched = into.with_name(f"{into.name}.koji")
        _hub(build).download(build.task_id, fetched, build.arch)
        for rpm in missing:
            rpm_file = fetched / rpm.name
            if not rpm_file.is_file():
                raise InfrastructureError(
                    f"Koji task {build.task_id} at {build.server} has no {rpm.name} any more",
                    hint="scratch builds are deleted after a while; the run's directory has them",
                )
            if sha256_of(rpm_file) != rpm.sha256:
                self.differs(f"{rpm.name} of Koji task {build.task_id} is not the one that the run tested")
            shutil.move(rpm_file, into / rpm.name)
        remove_tree(fetched)


def _hub(build: BuildRecord) -> BuildHub:
    # Downloads need no account.
    return KojiClient(KojiProfile(server=build.server, topurl=build.topurl, auth="none"))


def _from_copy(repository: Path, change: Change, into: Path) -> Path:
    """The commit from another checkout's objects, without what a suite did to its files."""
    # A copy, for git refuses to read a repository of another user.
    copied = into.with_name(f".{into.name}.git")
    shutil.copytree(repository, copied, symlinks=True)
    try:
        return checkout(f"file://{quote(str(copied.resolve()))}", change.rev, into)
    finally:
        remove_tree(copied)


def _read_base(record: Path) -> BaseImage:
    try:
        return read_base(record)
    except (OSError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{record} describes no base image: {error}", hint="JSON with path, identity, root_offset and ssh_key"
        ) from error
