"""How a base image comes into the store: built in a hidden directory, looked into, and published by one rename."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distgate.base_images.entries import (
    CONFIRMED,
    IMAGE,
    KICKSTART,
    LOG,
    RECORD,
    USED,
    BaseEntry,
    BaseFacts,
    read_entry,
    write_entry,
)
from distgate.base_images.prune import MAKING
from distgate.errors import DistgateError, InfrastructureError, PackageError
from distgate.files import disk_usage, remove_tree, tail_of
from distgate.guests.accelerator import Accelerator, accelerator
from distgate.guests.base import GuestHost
from distgate.images.base import BaseImage
from distgate.kickstart.base import BuiltImage, ImageBuilder
from distgate.locks import GUARD
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Steps
from distgate.text import format_size

if TYPE_CHECKING:
    from distgate.base_images.definition import BaseDefinition

#: Less than this much of a disk counts as none: file systems keep some for themselves.
NOTHING_LEFT = 4 << 20


@dataclass(frozen=True)
class BuildTools:
    """What makes bases and tries them. Times are in seconds, that of the boot under KVM.

    ``root_offset`` tells where an image's root file system starts, ``installed`` what its RPM database holds there.
    """

    builder: ImageBuilder
    guests: GuestHost
    root_offset: Callable[[Path], int]
    installed: Callable[[Path, int], Sequence[Nevra]]
    ssh_key: Path
    build_timeout: float = 7200.0
    boot_timeout: float = 180.0
    accelerated_by: Callable[[], Accelerator] = accelerator


@dataclass(frozen=True)
class BuildRequest:
    """One base to build: what of, for which state of the repositories, and the size to expect, when it is known."""

    definition: BaseDefinition
    snapshot: str
    expected: int | None = None

    @property
    def identity(self) -> str:
        return self.definition.identity(self.snapshot)

    @property
    def title(self) -> str:
        """How a sentence names it."""
        return f"base image {self.identity} ({self.definition.name}, {self.definition.branch})"


def build(request: BuildRequest, bases: Path, tools: BuildTools, progress: Progress) -> BaseEntry:
    """Build a base and publish it in ``bases``, unqualified; the caller holds its lock.

    Nothing is left of a failure. Raises InfrastructureError for it, ConfigurationError for a wrong kickstart.
    """
    making, entry = bases / f"{MAKING}{request.identity}", bases / request.identity
    remove_tree(making, ignore_errors=True)  # what a killed builder left
    making.mkdir(parents=True)
    try:
        _check_room(request, bases)
        _fill(request, making, entry, tools, progress)
        _settle(making)
        making.rename(entry)
    except (DistgateError, OSError) as error:
        explained = _explained(error, request, making)
        if explained is error:
            raise
        raise explained from error
    finally:
        remove_tree(making, ignore_errors=True)
    return read_entry(entry)


def _fill(request: BuildRequest, making: Path, entry: Path, tools: BuildTools, progress: Progress) -> None:
    definition, image, steps = request.definition, making / IMAGE, Steps(progress)
    (making / KICKSTART).write_text(definition.kickstart)
    built = tools.builder.build(
        definition.kickstart,
        f"{definition.name}-{definition.branch}",
        definition.release,
        image,
        tools.build_timeout,
        progress,
    )
    _keep_log(built, making / LOG)
    with steps.step("reading the image's RPM database"):
        offset = tools.root_offset(image)
        packages = tuple(sorted(tools.installed(image, offset)))
    if not packages:
        raise InfrastructureError(
            f"{request.title} was built without any package", hint="build.log says what happened"
        )
    base = BaseImage(
        path=entry / IMAGE,
        identity=request.identity,
        root_offset=offset,
        ssh_key=tools.ssh_key,
        repositories=tuple(source.place for source in definition.sources if source.kind != "ostree"),
    )
    facts = BaseFacts(
        branch=definition.branch,
        name=definition.name,
        kickstart_hash=definition.kickstart_hash,
        snapshot=request.snapshot,
        created=time.time(),
        size=disk_usage(image),
        steps=(*built.steps, *steps.taken),
        packages=packages,
    )
    write_entry(making, base, facts)


def _keep_log(built: BuiltImage, log: Path) -> None:
    if built.log.exists():
        shutil.move(built.log, log)
    else:
        log.touch()


def _settle(making: Path) -> None:
    """Make it fit to be published: nobody writes to a base again, and a crash of the host finds it whole."""
    (making / IMAGE).chmod(0o444)
    for empty in (GUARD, USED, CONFIRMED):
        (making / empty).touch()
    for path in (making / IMAGE, making / RECORD):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_room(request: BuildRequest, bases: Path) -> None:
    free = shutil.disk_usage(bases).free
    if request.expected is not None and free < request.expected:
        raise _full(request, bases, request.expected - free, f"only {format_size(free)} are free")


def _explained(failed: DistgateError | OSError, request: BuildRequest, making: Path) -> DistgateError:
    """The failure as whoever asked for the base should read it; measured before anything is cleaned up."""
    evidence = failed.evidence if isinstance(failed, DistgateError) else ""
    explanation = f"{failed} {evidence}"
    if _is_full(failed, explanation, making):
        written = disk_usage(making)
        missing = max(0, (request.expected or 0) - written)
        return _full(request, making.parent, missing, f"{format_size(written)} of it were written", evidence)
    if isinstance(failed, PackageError | OSError):  # there is no package under test in a base
        return InfrastructureError(
            f"{request.title} cannot be built: {failed}",
            hint="the kickstart and its repositories are at fault, not the package",
            evidence=evidence or tail_of(making / LOG),
        )
    return failed


def _is_full(failed: DistgateError | OSError, explanation: str, making: Path) -> bool:
    if isinstance(failed, OSError):
        return failed.errno in (errno.ENOSPC, errno.EDQUOT)
    # A builder's own scratch space may be on another disk: its words alone prove nothing about ours.
    return "No space left on device" in explanation and shutil.disk_usage(making).free < NOTHING_LEFT


def _full(request: BuildRequest, bases: Path, missing: int, detail: str, evidence: str = "") -> InfrastructureError:
    amount = f"{format_size(missing)} are missing" if missing else "how much is missing is not known"
    return InfrastructureError(
        f"the disk of the image store {bases.parent} is too full for {request.title}: {detail}, {amount}",
        hint="make room there, or lower the limit: distgate images prune --limit SIZE",
        evidence=evidence,
    )
