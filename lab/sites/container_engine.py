"""A Docker engine of the lab's own, in a sealed host, and images that are built with it from nothing but Debian."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import remove_tree, tail_of
from distgate.process import Completed, kill_group, on_path, run, spawn
from distgate.steps import Progress
from distgate.waiting import wait_for
from lab.distribution.cache import ensure_entry, identity_of
from lab.distribution.debian_root import RELEASE
from lab.sites.sealed_host import SealedHost

PACKAGES = "docker.io iptables mmdebstrap"
#: Where clients look for an engine by default.
SOCKET = Path("/run/docker.sock")
BASE = "local/debian:12"
#: The bridge of its containers: this host's address on it, and the network.
BRIDGE, BRIDGE_NETWORK = "172.31.99.1", "172.31.99.1/24"
_CGROUPS = Path("/sys/fs/cgroup")
#: Certificate authorities that an administrator added on Debian: downloads may pass a proxy that needs them.
_LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_START_SECONDS, _END_SECONDS = 60.0, 30.0
_BASE_SECONDS, BUILD_SECONDS = 600.0, 1800.0


@dataclass(frozen=True)
class Engine:
    """An engine that runs in ``host``, with images and containers below ``data``; ``socket`` is inside."""

    host: SealedHost
    data: Path
    socket: Path

    def docker(self, *arguments: str | Path, timeout: float = 60.0, log_to: Path | None = None) -> Completed:
        """Docker's own client, in the host. Raises ProcessFailed with its output."""
        # The first generation of builds needs nothing but the engine.
        env = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}
        return self.host.run(["docker", *arguments], timeout=timeout, env=env, log_to=log_to)


def why_not() -> str:
    """Why no engine can be engine here, as a sentence; empty when it can be tried."""
    if os.geteuid() != 0:
        return "a container engine of our own takes root"
    missing = [program for program in ("dockerd", "docker", "iptables", "mmdebstrap") if not on_path(program)]
    return f"{', '.join(missing)} not found: apt-get install {PACKAGES}" if missing else ""


@contextmanager
def running_engine(host: SealedHost, data: Path, *, bridge: bool) -> Iterator[Engine]:
    """An engine in ``host`` for the block; its state and its log are kept below ``data``.

    With a ``bridge`` containers have a network, as on any host: for this the host's network must be its own.
    Raises ConfigurationError without the programs, InfrastructureError when it does not come up.
    """
    if reason := why_not():
        raise ConfigurationError(reason)
    data.mkdir(parents=True, exist_ok=True)
    engine = Engine(host, data, SOCKET if bridge else data / "docker.sock")
    log = data / "dockerd.log"
    child = spawn([*host.prefix(), "dockerd", *_options(engine, bridge)], log_to=log)
    try:
        wait_for(
            "the container engine to answer", lambda: _answers(engine), _START_SECONDS, evidence=lambda: tail_of(log)
        )
        yield engine
    finally:
        kill_group(child.pid, signal.SIGTERM)
        child.wait()
        _until_gone(engine)
        forget_groups(group_of(data))


def group_of(data: Path) -> str:
    """The control group below which the containers of an engine are; the name is unique to it."""
    return f"distgate-{identity_of(str(data))}"


def groups(name: str) -> list[Path]:
    """The control groups called ``name``, and those below them, the innermost first."""
    tops = [_CGROUPS / name, *_CGROUPS.glob(f"*/{name}")]
    directories = [path for top in tops if top.is_dir() for path in (top, *(p for p in top.rglob("*") if p.is_dir()))]
    return sorted(directories, key=lambda path: -len(path.parts))


def forget_groups(name: str) -> None:
    """Remove what an engine leaves in the kernel; whatever is still in use stays."""
    for path in groups(name):
        with suppress(OSError):
            path.rmdir()


def debian_archive(cache: Path, progress: Progress) -> Path:
    """A small Debian as a tar archive, made in ``cache`` on the first call (half a minute, network, root)."""
    recipe = identity_of(RELEASE, *(path.read_text() for path in sorted(_LOCAL_AUTHORITIES.rglob("*.crt"))))

    def make(into: Path) -> None:
        progress("making a Debian for containers")
        hooks = ['--customize-hook=chroot "$1" update-ca-certificates']
        if _LOCAL_AUTHORITIES.is_dir():
            hooks.insert(0, f"--customize-hook=copy-in {_LOCAL_AUTHORITIES} {_LOCAL_AUTHORITIES.parent}")
        argv = ["mmdebstrap", "--mode=root", "--variant=minbase", "--include=ca-certificates", *hooks]
        run([*argv, RELEASE, into / "root.tar"], timeout=_BASE_SECONDS, error=InfrastructureError)

    return ensure_entry(cache, "container-bases", recipe, make) / "root.tar"


def build_image(engine: Engine, archive: Path, project: Path, name: str, progress: Progress) -> None:
    """Build deploy/Containerfile of ``project`` on the Debian in ``archive``; three to six minutes, with the network.

    Raises InfrastructureError whose evidence is the build's end.
    """
    # pip has authorities of its own, and uv brings others along: both are to believe the system's.
    believe = f"ENV PIP_CERT={_AUTHORITIES} SSL_CERT_FILE={_AUTHORITIES}"
    engine.docker("import", "--change", believe, archive, BASE, timeout=300)
    progress(f"building {name}")
    options = ("--network=host", "--file", project / "deploy/Containerfile", "--build-arg", f"BASE={BASE}")
    log = engine.data / "build.log"
    engine.docker("build", *options, "--tag", name, project, timeout=BUILD_SECONDS, log_to=log)


def remove(data: Path) -> None:
    """Delete everything that an engine kept below ``data``."""
    remove_tree(data, ignore_errors=True)


def _options(engine: Engine, bridge: bool) -> list[str]:
    network = [f"--bip={BRIDGE_NETWORK}"] if bridge else ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    paths = {"data-root": engine.data / "data", "exec-root": engine.data / "exec", "pidfile": engine.data / "pid"}
    return [
        *(f"--{name}={path}" for name, path in paths.items()),
        f"--host=unix://{engine.socket}",
        f"--cgroup-parent=/{group_of(engine.data)}",
        "--exec-opt=native.cgroupdriver=cgroupfs",  # no systemd runs there
        *network,
    ]


def _answers(engine: Engine) -> bool:
    with suppress(InfrastructureError):
        engine.docker("ps", timeout=20)
        return True
    return False


def _until_gone(engine: Engine) -> None:
    with suppress(InfrastructureError):  # its host ends it otherwise
        wait_for("the container engine to end", lambda: not (engine.data / "pid").exists(), _END_SECONDS)
