"""A host of its own within this one: names, networks, mounts and processes of its own, which end with it.

What a site does to its hosts can be done there for real: accounts in /etc, files in /opt and /var/lib, bridges and
packet filters. Nothing of it reaches the host around it, not even when the process that started it is killed.

``python -m lab.sites.sealed_host`` is its first process; ``sealed_host`` starts it.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError
from distgate.process import Completed, background, on_path, run
from distgate.sandbox.kernel import loopback_up, mount

#: What is written there stays within the sealed host, below its state directory.
OWN = ("etc", "opt", "var/lib")
READY = "sealed"
_START_SECONDS = 30.0
_NAMESPACES = ("mount", "pid", "ipc", "uts")


@dataclass(frozen=True)
class SealedHost:
    """A sealed host that is up: ``pid`` is its first process as seen from here, ``namespaces`` what it has alone."""

    pid: int
    namespaces: tuple[str, ...]
    state: Path

    def prefix(self, cwd: Path = Path("/")) -> tuple[str, ...]:
        """What to put before a command to run it there, in the directory ``cwd``."""
        kinds = [f"--{namespace}" for namespace in self.namespaces]
        return ("nsenter", f"--target={self.pid}", *kinds, "--", "env", f"--chdir={cwd}")

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        timeout: float,
        env: Mapping[str, str] | None = None,
        cwd: Path = Path("/"),
        log_to: Path | None = None,
        allowed: Sequence[int] = (0,),
    ) -> Completed:
        """Run a command there; see distgate.process.run."""
        return run([*self.prefix(cwd), *argv], timeout=timeout, env=env, log_to=log_to, allowed=allowed)

    def path(self, inside: str) -> Path:
        """Where this host sees what was written to ``inside``, a path in one of the directories of OWN."""
        return self.state / "own" / inside.lstrip("/")


@contextmanager
def sealed_host(state: Path, name: str, *, network: bool = True) -> Iterator[SealedHost]:
    """A sealed host called ``name`` for the block; every process in it is killed at the end.

    Its files are kept below ``state``, which has the same name inside. Without ``network`` of its own it shares this
    host's. Raises ConfigurationError for others than root, InfrastructureError when the kernel refuses it.
    """
    if not on_path("nsenter"):
        raise ConfigurationError("there is no nsenter on this host", hint="install util-linux")
    namespaces = (*_NAMESPACES, *(("net",) if network else ()))
    unshare_argv = [
        "unshare",
        *(f"--{namespace}" for namespace in namespaces),
        "--fork",
        "--mount-proc",
        "--kill-child",
        "--",
    ]
    argv = [sys.executable, "-m", "lab.sites.sealed_host", "--state", str(state), "--name", name]
    with background(
        [*unshare_argv, *argv, *(["--network"] if network else [])], ready_line=READY, timeout=_START_SECONDS
    ) as unshare:
        (pid,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
        yield SealedHost(int(pid), namespaces, state)


def is_sealed() -> bool:
    """Whether this process is in a sealed host."""
    return b"\0lab.sites.sealed_host\0" in Path("/proc/1/cmdline").read_bytes()


def main() -> None:
    """Be the first process of a sealed host until the end of standard input."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--network", action="store_true", help="the network is its own")
    options = parser.parse_args()
    _settle_in(options.state, options.name, options.network)
    # Orphans become children of the first process: the kernel is to bury them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print(READY, flush=True)
    sys.stdin.read()


def _settle_in(state: Path, name: str, network: bool) -> None:
    for directory in OWN:
        upper, work = state / "own" / directory, state / "work" / directory
        for layer in (upper, work):
            layer.mkdir(parents=True, exist_ok=True)
        upper.chmod(0o755)
        mount("overlay", f"/{directory}", "overlay", 0, f"lowerdir=/{directory},upperdir={upper},workdir={work}")
    socket.sethostname(name)
    if network:
        # Sockets and locks of this host's services are none of its business. With a network in common there may be a
        # name server to be asked through one.
        mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
        loopback_up()


if __name__ == "__main__":
    main()
