"""What distgate needs from the world, as small protocols; each has a real driver beside this file.

A record is frozen and holds only what the caller may rely on: strings, numbers and paths on this host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from distgate.errors import InfrastructureError
from distgate.package_diff import PackageChange
from distgate.packages import Nevra
from distgate.steps import Step

#: How one logs in to a Koji hub.
KojiAuth = Literal["none", "password", "gssapi", "ssl"]
Progress = Callable[[str], None]
"""Receives one line for the person who watches; it must not raise."""


@dataclass(frozen=True)
class BuildTask:
    """One task of a Koji build: ``state`` is FREE, OPEN, CLOSED, CANCELED, ASSIGNED or FAILED."""

    task_id: int
    method: str
    arch: str
    state: str
    children: tuple[BuildTask, ...] = ()

    def lines(self, indent: int = 0) -> list[str]:
        """The tree as a terminal shows it, one task a line."""
        own = f"{'  ' * indent}{self.task_id} {self.method} ({self.arch}) {self.state}"
        return [own, *(line for child in self.children for line in child.lines(indent + 1))]


class TaskLost(InfrastructureError):
    """A build task ended without packages through no fault of theirs: waiting for it again is in vain, a new task
    may succeed."""


class BuildHub(Protocol):
    """A Koji hub as a scratch build needs it."""

    def submit(self, source: str, target: str, arch: str) -> int:
        """Start a scratch build of ``git+URL#REV`` and return its task ID. An unknown target is refused here."""

    def submit_srpm(self, path: Path, target: str, arch: str) -> int:
        """Upload the source package ``path``, start a scratch build of it and return its task ID."""

    def dist_tag(self, target: str) -> str:
        """What %dist is in packages for ``target``: ``.fc44``."""

    def wait(self, task_id: int, timeout: float, progress: Progress) -> BuildTask:
        """Return the task tree when the build is CLOSED.

        Raises PackageError with the builder's text when it FAILED, TaskLost when it failed by the builder's fault,
        Cancelled when it or a part of it was CANCELED, TimedOut (after cancelling the task) when ``timeout`` seconds
        passed. After any other InfrastructureError the task may still run.
        """

    def cancel(self, task_id: int) -> None:
        """Cancel a task and its descendants; one that has ended already stays as it is."""

    def download(self, task_id: int, into: Path, arch: str) -> list[Path]:
        """Fetch RPMs (``arch``, noarch, src) and logs of the whole task tree; also works for a FAILED build,
        whose logs are then all there is."""


@dataclass(frozen=True)
class BaseImage:
    """A qualified base: a bootable qcow2 whose root file system starts at ``root_offset`` bytes."""

    path: Path
    identity: str
    root_offset: int
    ssh_key: Path
    repositories: tuple[str, ...] = ()

    @classmethod
    def from_record(cls, record: Mapping[str, Any], directory: Path = Path()) -> BaseImage:
        """The base that a JSON record of these fields describes; its paths may be relative to ``directory``."""
        return cls(
            path=_below(directory, record["path"]),
            identity=record["identity"],
            root_offset=int(record["root_offset"]),
            ssh_key=_below(directory, record["ssh_key"]),
            repositories=tuple(record.get("repositories", ())),
        )


def _below(directory: Path, path: str) -> Path:
    return Path(os.path.normpath(directory / path))


@dataclass(frozen=True)
class Omission:
    """A package that was built and not put into the image, and why."""

    package: Nevra
    reason: str


@dataclass(frozen=True)
class Forced:
    """A package that replaced the base's own against the usual order: a downgrade, or a reinstall of one NEVRA."""

    package: Nevra
    action: Literal["downgrade", "reinstall"]
    replaced: Nevra


@dataclass(frozen=True)
class ComposedImage:
    """A bootable qcow2 with the packages under test; ``installed`` was read back from the image's RPM database.

    ``base`` is the identity of the base image, whose file ``backing`` the overlay needs (None: standalone).
    ``size`` is the qcow2's own size in bytes. ``way`` is how it was made ``reason`` why in that way; ``driver`` is
    what did it (loop, rootless, guestfs, imagefactory). ``kickstart_hash`` is the SHA-256 of the flattened kickstart.
    """

    path: Path
    base: str
    backing: Path | None
    installed: tuple[Nevra, ...]
    requested: tuple[Nevra, ...]
    size: int
    transaction: str = ""
    way: Literal["layered", "full"] = "layered"
    reason: str = ""
    driver: str = ""
    kickstart_hash: str = ""
    omitted: tuple[Omission, ...] = ()
    forced: tuple[Forced, ...] = ()
    steps: tuple[Step, ...] = ()


class ImageComposer(Protocol):
    """Puts RPMs into a bootable image without booting it."""

    def compose(
        self,
        base: BaseImage,
        repository: Path,
        packages: Sequence[Nevra],
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> ComposedImage:
        """Install exactly ``packages`` from ``repository`` (a directory with repodata) offline.

        ``into`` is the qcow2 to write. Raises PackageError with the solver's or the scriptlet's words when the
        packages cannot be installed, InfrastructureError for everything else; leaves no mount either way.
        """


@dataclass(frozen=True)
class BuiltImage:
    """A whole image made from a kickstart: a standalone bootable qcow2, its builder's log, and each step's time."""

    path: Path
    log: Path
    steps: tuple[Step, ...] = ()


class ImageBuilder(Protocol):
    """Makes a bootable image from nothing but a kickstart (the ``full`` way)."""

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        """Build from the flattened text ``kickstart`` and write the qcow2 ``into``; logs stay beside it.

        ``name`` and ``release`` ("rawhide", "44") describe the image to the builder. Raises PackageError when the
        packages under test keep it from being built, InfrastructureError (TimedOut after ``timeout`` seconds, or
        when the builder shows no progress) for everything else; ``into`` is absent after a failure.
        """


@dataclass(frozen=True)
class ComposedTree:
    """An OSTree commit ``rev`` that was published under ``ref``, with ``parent`` before it.

    ``installed`` was read from the commit's own RPM database, ``changes`` are against the parent's, ``requested`` are
    the packages under test that it was to hold. ``driver`` is what composed it (rpm-ostree, dnf). In bytes: ``size``
    is what its files take unpacked, ``delta_size`` what a client on the parent fetches (0: no static delta).
    """

    ref: str
    rev: str
    version: str
    parent: str | None
    installed: tuple[Nevra, ...]
    changes: tuple[PackageChange, ...]
    requested: tuple[Nevra, ...]
    driver: str
    size: int
    delta_size: int = 0
    signed: bool = False
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class TreeRequest:
    """One commit to compose into the repository ``build``: ``packages`` exactly, from ``under_test``, and everything
    ``also``, with ``tested`` (both directories with repodata) preferred to the distribution at equal versions."""

    build: Path
    ref: str
    version: str
    parent: str | None
    under_test: Path | None = None
    packages: tuple[Nevra, ...] = ()
    tested: Path | None = None
    also: tuple[str, ...] = ()


class TreeComposer(Protocol):
    """Makes an OSTree commit from a treefile and RPMs; what it makes is in no ref."""

    @property
    def name(self) -> str:
        """What it is called in records."""

    def commit(self, request: TreeRequest, scratch: Path, progress: Progress = lambda _line: None) -> str:
        """The new commit's checksum. ``scratch`` is a directory on the file system of the repository.

        Raises PackageError with the solver's or the scriptlet's words when the packages do not go into the tree,
        ConfigurationError for a treefile that it cannot follow, InfrastructureError for everything else.
        """


@dataclass(frozen=True)
class CommandResult:
    """What a command in the guest said."""

    returncode: int
    stdout: str
    stderr: str


class GuestStopped(InfrastructureError):
    """A guest ended by itself before it could be used; ``evidence`` is what console and emulator said last."""


class Guest(Protocol):
    """A running virtual machine that answers ssh on loopback."""

    @property
    def name(self) -> str:
        """Its name in logs."""

    @property
    def port(self) -> int:
        """The loopback port that leads to its sshd."""

    @property
    def key(self) -> Path:
        """The private key that root's authorized_keys in the guest knows."""

    @property
    def console(self) -> Path:
        """The file that its serial console is written to."""

    def run(self, command: str, timeout: float) -> CommandResult:
        """Run a shell command as root. Raises InfrastructureError when the guest cannot be reached."""

    def console_tail(self, size: int = 2000) -> str:
        """The end of the serial console: the evidence of every wait."""

    def reboot(self, timeout: float) -> Guest:
        """Ask it to restart, and return it once another boot obeys over ssh; ``timeout`` as that of a boot.

        Raises TimedOut with the console's tail when it does not come back, GuestStopped when it powers off.
        """


class GuestHost(Protocol):
    """Starts guests and never leaves one behind."""

    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> AbstractContextManager[Guest]:
        """A guest on a throw-away overlay of ``image``, entered once ssh answers, destroyed on exit.

        Logs and the serial console stay in ``workdir``. ``timeout`` is in seconds under KVM and is scaled by the
        accelerator that the probe found. Raises TimedOut with the console's tail.
        """


@dataclass(frozen=True)
class SuiteRun:
    """What was observed when one test suite ran: the input of the verdict (distgate.verdict).

    ``kind`` says whose words ``returncode`` and the files in ``artifacts`` are: those of ansible-playbook and the
    Standard Test Interface, tmt's, or those of a playbook whose tasks are the tests.
    """

    suite: str
    returncode: int
    artifacts: Path
    unreachable: bool = False
    timed_out: bool = False
    tasks: Mapping[str, int] = field(default_factory=dict)
    kind: Literal["sti", "tmt", "playbook"] = "sti"
