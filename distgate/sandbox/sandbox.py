"""Programs that strangers wrote, run on this host with nothing to steal, nothing to break and no network.

A process (distgate.sandbox.monitor) builds a file system of what is listed and runs the program in it
as an unprivileged user, in namespaces of its own. docs/isolation.md says what it holds off, and what it does not.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import distgate
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.process import ProcessTimedOut, run

MIB = 1 << 20
#: Seconds that the monitor gets for what comes before and after the program, artifacts included.
_GRACE = 120.0
#: What programs of a Python environment read of it.
_PARTS = ("bin", "lib", "lib64", "pyvenv.cfg")
#: The monitor's own status for what keeps it from starting the program.
CANNOT = 3
#: A directory of this name is never copied: a clone's configuration may hold the URL's password.
_NOT_COPIED = (".git",)


@dataclass(frozen=True)
class Limits:
    """What a program may use up. Sizes are in bytes; ``memory`` is the address space of each of its processes."""

    processes: int = 256
    memory: int = 4096 * MIB
    open_files: int = 1024
    scratch: int = 256 * MIB
    copied: int = 1024 * MIB
    artifacts: int = 256 * MIB
    artifact_files: int = 5000
    log: int = 16 * MIB
    report: int = 8 * MIB


@dataclass(frozen=True)
class SandboxRun:
    """How a program ended. ``report`` is what it wrote to REPORT_FD; the rest was seen from outside.

    ``returncode`` is as a shell has it: 128 and the signal's number for a program that was killed; 137 at its
    deadline, when ``timed_out``. ``log_dropped`` is in bytes; ``dropped`` names the artifacts that stayed behind.
    """

    returncode: int
    timed_out: bool
    report: str
    log_dropped: int = 0
    dropped: tuple[str, ...] = ()


class HasPort(Protocol):
    """A guest, as far as a sandbox needs to know it."""

    @property
    def port(self) -> int:
        """The loopback port that leads to its sshd."""


@dataclass(frozen=True)
class PortForward:
    """One way out of a sandbox: what connects to 127.0.0.1:``inside`` in there reaches ``host``:``port``."""

    inside: int
    host: str
    port: int


@dataclass(frozen=True)
class MonitorSpec:
    """What the monitor is to run, and what of this host the program sees."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    readable: list[str]
    copies: list[str]
    artifacts: str
    log: str
    timeout: float
    forwards: list[PortForward]
    parent: int
    limits: Limits = field(default_factory=Limits)
    not_copied: list[str] = field(default_factory=lambda: list(_NOT_COPIED))

    @classmethod
    def from_json(cls, text: str) -> MonitorSpec:
        """What ``json.dumps(dataclasses.asdict(spec))`` wrote."""
        record = json.loads(text)
        forwards = [PortForward(**forward) for forward in record["forwards"]]
        return cls(**record | {"limits": Limits(**record["limits"]), "forwards": forwards})


class Sandbox:
    """Runs programs with ``limits``; ``scratch`` is for their monitors (default: the temporary directory)."""

    def __init__(self, limits: Limits | None = None, *, scratch: Path | None = None) -> None:
        self._limits = limits or Limits()
        self._scratch = scratch

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str],
        timeout: float,
        log_to: Path,
        readable: Sequence[Path] = (),
        copies: Sequence[Path] = (),
        artifacts: Path | None = None,
        guest: HasPort | None = None,
        forwards: Sequence[PortForward] = (),
        cwd: Path | None = None,
    ) -> SandboxRun:
        """Run ``argv`` with exactly the environment ``env`` and return how it ended; none of its processes lives on.

        Every path is the same inside as outside. It sees /usr, ``readable`` and this Python's own directories
        (read-only), and throw-away copies of the directories ``copies``. What it leaves in the directory
        ``artifacts``, empty inside, comes out as regular files without harm in their names, up to the limits;
        ``dropped.txt`` beside them lists the rest. The only network is 127.0.0.1:``guest.port``, and ``forwards``.
        Its output is appended to ``log_to``, shortened in the middle. The variable REPORT_FD is added to its
        environment, the number of a socket whose text is the ``report``. It is killed after ``timeout`` seconds.

        Raises ConfigurationError for a path that is not there, InfrastructureError when it could not be started.
        """
        spec = MonitorSpec(
            argv=[os.fspath(argument) for argument in argv],
            env=dict(env),
            cwd=str(cwd.resolve()) if cwd else "/tmp",  # noqa: S108 - the sandbox's own
            readable=_outermost([*python_paths(Path(sys.executable)), *map(Path.absolute, readable)]),
            copies=[str(path.resolve()) for path in copies],
            artifacts=str(artifacts.resolve()) if artifacts else "",
            log=str(log_to.resolve()),
            timeout=timeout,
            forwards=[*([PortForward(guest.port, "127.0.0.1", guest.port)] if guest else []), *forwards],
            parent=os.getpid(),
            limits=self._limits,
        )
        _check(spec)
        with tempfile.TemporaryDirectory(prefix="distgate-sandbox-", dir=self._scratch) as private:
            spec_file = Path(private) / "spec.json"
            spec_file.write_text(json.dumps(dataclasses.asdict(spec)))
            return _run_monitor(spec_file, timeout)


def python_paths(python: Path) -> list[Path]:
    """What a Python interpreter and its packages need beyond /usr, and distgate's own code.

    Of an environment only these parts: people also keep a service's database and passwords where they installed it.
    """
    environment, home = python.absolute().parents[1], python.resolve().parents[1]
    prefixes = [prefix for prefix in (environment, home, *_bases(environment)) if prefix != Path("/")]
    needed = [prefix / part for prefix in prefixes for part in _PARTS if (prefix / part).exists()]
    needed.append(Path(distgate.__file__).resolve().parent)
    return [path for path in needed if not path.is_relative_to("/usr")]


def _bases(environment: Path) -> list[Path]:
    """Where the interpreter of a virtual environment stands: its links may lead through a directory of their own."""
    configuration = environment / "pyvenv.cfg"
    if not configuration.is_file():
        return []
    pairs = (line.partition("=") for line in configuration.read_text().splitlines())
    return [Path(value.strip()).parent for name, _, value in pairs if name.strip() == "home"]


def _outermost(paths: Sequence[Path]) -> list[str]:
    unique = sorted(set(paths))
    return [str(path) for path in unique if not any(path != other and path.is_relative_to(other) for other in unique)]


def _check(spec: MonitorSpec) -> None:
    for path in (*spec.readable, *spec.copies, *([spec.artifacts] if spec.artifacts else [])):
        if not os.path.exists(path):
            raise ConfigurationError(f"{path} was to be shown to a sandbox and is not there")


def _run_monitor(spec_file: Path, timeout: float) -> SandboxRun:
    try:
        ended = run(
            [sys.executable, "-m", "distgate.sandbox.monitor", spec_file],
            timeout=timeout + _GRACE,
            allowed=range(-64, 256),
            split_errors=True,
        )
    except ProcessTimedOut as error:
        raise InfrastructureError("a sandbox did not end after its deadline", evidence=error.evidence) from error
    if ended.returncode:
        errors = ended.errors.strip().splitlines() or [f"its monitor ended with status {ended.returncode}"]
        raise InfrastructureError(
            f"a sandbox could not be set up: {errors[-1]}",
            hint="bubblewrap (0.8 or newer) and user namespaces are needed; docs/isolation.md",
            evidence=ended.errors,
        )
    answer = json.loads(ended.output)
    return SandboxRun(**answer | {"dropped": tuple(answer["dropped"])})
