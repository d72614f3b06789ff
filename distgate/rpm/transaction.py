"""One RPM transaction in an image or a directory, done by a child that lives in namespaces of its own.

The child (distgate.rpm.transaction_child) has a private mount and process namespace, and dies with its
caller: the kernel then ends whatever it had started and undoes its mounts. Scriptlets have no network.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.files import tail_of
from distgate.mounts.choice import DriverName
from distgate.process import ProcessTimedOut
from distgate.records import read_record
from distgate.rpm.dnf_output import running_scriptlet
from distgate.rpm.nevra import Nevra
from distgate.sandbox.child import ANSWER, NoReport, run_in_namespaces
from distgate.steps import Progress, Step

TRANSCRIPT = 20_000
TRANSCRIPT_NAME = "transcript.log"
_CHILD = "distgate.rpm.transaction_child"
#: A host with less than this left, in bytes, has probably refused a write of ours.
HOST_RESERVE = 4 << 20


@dataclass(frozen=True)
class RepositorySource:
    """A repository for dnf. A lower ``priority`` wins over newer versions elsewhere, ``cost`` among equals."""

    name: str
    baseurl: str = ""
    mirrorlist: str = ""
    metalink: str = ""
    priority: int = 99
    cost: int = 1000
    excluded: tuple[str, ...] = ()

    @classmethod
    def at(cls, name: str, location: str | Path, priority: int = 99) -> RepositorySource:
        """A repository by URL or by directory; ``metalink+URL`` and ``mirrorlist+URL`` name a list of mirrors."""
        text = str(location)
        kind, _, address = text.partition("+")
        if kind == "metalink":
            return cls(name, metalink=address, priority=priority)
        if kind == "mirrorlist":
            return cls(name, mirrorlist=address, priority=priority)
        return cls(name, text if "://" in text else Path(text).resolve().as_uri(), priority=priority)

    @property
    def is_local(self) -> bool:
        return self.baseurl.startswith("file:")

    @property
    def directory(self) -> Path:
        """Where a local repository is."""
        return Path(unquote(urlsplit(self.baseurl).path))


@dataclass(frozen=True)
class Script:
    """A script to run in the root after the transaction, by ``interpreter``; a ``fatal`` one may fail it."""

    name: str
    body: str
    interpreter: str = "/bin/sh"
    fatal: bool = True


@dataclass(frozen=True)
class Transaction:
    """What to install where: ``image`` (a qcow2 file with its root at ``offset`` bytes) or the directory ``root``.

    ``requests`` are arguments of dnf (``@group``, names, exact NEVRAs); without any, the database is only read.
    ``choosing`` lets exact NEVRAs that do not go together be narrowed to the greatest set that does: never, when dnf
    refuses them, or first of all. ``release`` is what ``$releasever`` means. ``driver`` mounts the image, for guestfs
    with the kernel of ``appliance_kernel`` (a directory of modules; None: the host's).
    """

    repositories: tuple[RepositorySource, ...]
    requests: tuple[str, ...]
    image: Path | None = None
    offset: int = 0
    root: Path | None = None
    excluded: tuple[str, ...] = ()
    weak_dependencies: bool = False
    scripts: tuple[Script, ...] = ()
    release: str = "12"
    driver: DriverName = "loop"
    choosing: Literal["never", "on-refusal", "first"] = "never"
    appliance_kernel: Path | None = None
    appliance_cache: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The image's RPM database before and afterwards, what dnf and the scripts printed, and each step's time.

    ``omitted`` are the requests that were left out, each with the reason.
    """

    installed: tuple[Nevra, ...]
    transcript: str
    before: tuple[Nevra, ...] = ()
    omitted: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Databases:
    """The child's answer: the RPM database before and afterwards as lines of nevra.QUERY, and what was left out."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    omitted: tuple[tuple[str, str], ...] = ()


def perform(
    transaction: Transaction,
    scratch: Path,
    timeout: float,
    progress: Progress = lambda _line: None,
    keep_open: Sequence[int] = (),
) -> Outcome:
    """Carry out ``transaction``; its configuration, caches and logs live in a new directory below ``scratch``.

    ``timeout`` is in seconds; ``progress`` hears of every step; the files ``keep_open`` stay open in the child, which
    sees them in /proc/1/fd. Raises PackageError when the packages cannot be installed together, do not fit, or a
    scriptlet fails or hangs, ConfigurationError for a directory without root rights, InfrastructureError for
    everything else. No mount, loop device or process is left, whatever happens.
    """
    if transaction.root and os.geteuid() != 0:
        raise ConfigurationError("installing into a directory takes root", hint="start the worker as root")
    with tempfile.TemporaryDirectory(prefix="transaction-", dir=scratch) as name:
        workspace = Path(name)
        log = workspace / TRANSCRIPT_NAME
        try:
            steps = run_in_namespaces(
                _CHILD,
                transaction,
                workspace,
                log=log,
                timeout=timeout,
                progress=progress,
                pass_fds=keep_open,
                evidence=TRANSCRIPT,
            )
        except ProcessTimedOut as error:
            raise _too_late(error, timeout, log) from None
        except NoReport as error:
            check_host(workspace, error.evidence)
            raise InfrastructureError("the transaction ended without an answer", evidence=error.evidence) from None
        databases = read_record(workspace / ANSWER, Databases)
        return Outcome(
            installed=_packages(databases.after),
            transcript=tail_of(log, TRANSCRIPT),
            before=_packages(databases.before),
            omitted=databases.omitted,
            steps=steps,
        )


def _packages(lines: Sequence[str]) -> tuple[Nevra, ...]:
    return tuple(sorted(map(Nevra.parse, lines)))


def check_host(workspace: Path, evidence: str) -> None:
    """Raise InfrastructureError when the host's disk is full: nothing else that was said matters then."""
    state = os.statvfs(workspace)
    free = state.f_bavail * state.f_frsize
    if free < HOST_RESERVE:
        raise InfrastructureError(
            f"the host's disk is full: {free / 1e6:.1f} MB are left where the image is made",
            hint="remove old runs or images",
            evidence=evidence,
        )


def _too_late(late: ProcessTimedOut, timeout: float, log: Path) -> DistgateError:
    """A scriptlet that was silent for most of the time hangs, which is its package's fault; all else is ours."""
    transcript = tail_of(log, TRANSCRIPT)
    package = running_scriptlet(transcript)
    if package and time.time() - log.stat().st_mtime > timeout / 2:
        return PackageError(
            f"a scriptlet of {package} hangs: it was killed at the deadline of {timeout:g} s",
            hint="does it wait for a service, the network or an answer?",
            evidence=transcript,
        )
    doing = f"in a scriptlet of {package}" if package else "see the end of its output"
    return InfrastructureError(
        f"the transaction was killed after {timeout:g} s, {doing}",
        hint=late.hint,
        evidence=transcript or late.evidence,
    )
