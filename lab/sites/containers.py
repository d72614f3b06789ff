"""A site whose runs are containers: what docs/deploy.md says of the Docker pool, in a sealed host with an engine.

``python -m lab.sites.containers --state DIR --cache DIR`` starts it there, as root; it ends with the host. Containers
reach the host by its address on their bridge, as they reach a site's servers by theirs. So every address that a run
gets is on the bridge, and a service there passes connections on to the lab's servers, which listen on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from distgate.doctor.health import health_file
from distgate.errors import ConfigurationError
from distgate.files import remove_tree
from distgate.process import run
from distgate.sandbox.kernel import MS_BIND, mount
from distgate.sandbox.relay import GuestRelay
from distgate.steps import Progress
from lab.distribution.rpm_repository import ensure_repository
from lab.images.base_image import BRANCH, KICKSTART, TIMEOUT, lab_kickstart
from lab.images.imagefactory import COMMAND
from lab.servers import postgresql, prefect_server
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service, save_service
from lab.sites.container_engine import BRIDGE
from lab.sites.sealed_host import is_sealed
from lab.world import PROJECT, QUEUE, WORKER_AFTER, Start, World, register

#: Where docs/deploy.md has the project, the site's settings, and the data that runs share; jobs mount the last two.
PROGRAM, SETTINGS, DATA = Path("/opt/distgate"), Path("/etc/distgate"), Path("/var/lib/distgate")
ACCOUNT, USER_ID = "distgate", 900
DIRECTORIES = ("images", "trees", "artifacts", "results", "guests", "prefect")
WORKER, REPOSITORY, RELAY = "worker", "repository", "relay-to-loopback"
#: Connections at a time to each server: those of all services and runs together.
_CONNECTIONS = 256
#: Variables of a lab's environment that a site does not have.
_LAB_ONLY = {
    *("PATH", "PYTHONUNBUFFERED", "PREFECT_HOME", "DISTGATE_LAB_STATE", "DISTGATE_CACHE_DIR"),
    *("DISTGATE_WORKER_STATE", "DISTGATE_METRICS_LISTEN"),
}


class ContainerSite(Start):
    """One start of the site."""

    patience = 480.0

    def __init__(self, state: Path, cache: Path, progress: Progress) -> None:
        _become_a_site_s_host()
        super().__init__(state, cache, progress)
        self.database = postgresql.prepare(state / "postgresql")
        (self.repository_port,) = free_ports(1)
        self.world = _as_containers_see_it(
            replace(
                self.world,
                ledger_url=self.database.url(postgresql.LEDGER),
                artifacts_dir=DATA / "artifacts",
                guests_dir=DATA / "guests",
                images_dir=DATA / "images",
                images_key=DATA / "images/ssh/id_ed25519",
                trees_dir=DATA / "trees",
                kickstart=SETTINGS / "image.ks",
            )
        )
        _write_settings(self.world)

    def prefect_services(self) -> list[Service]:
        """Prefect's server, the ledger's, and the way to all servers from the bridge."""
        return [self.prefect.server(), self.database.service(), self._bridge_relay()]

    def add_workers(self) -> None:
        """The places of the site, then its worker: a doctor that misses one lets it take no runs."""
        register(self.state / "world.draft.json", self.world)
        save_service(self.state, self._worker())

    def _images(self) -> None:
        repository = ensure_repository(self.cache, self._report)
        save_service(self.state, self._koji())
        save_service(self.state, self._repository(repository.path))
        self._wait([REPOSITORY, RELAY])
        served = f"http://{BRIDGE}:{self.repository_port}"
        self.world.kickstart.write_text(lab_kickstart(KICKSTART, repository).replace(repository.url, served))
        self._report("building and qualifying a base image")
        settings = {"DISTGATE_IMAGE_FACTORY": json.dumps(COMMAND), "DISTGATE_GUESTS_DIR": str(self.state / "builder")}
        arguments = ("images", "refresh", "--branch", BRANCH, "--kickstart", str(self.world.kickstart))
        run(
            [sys.executable, "-m", "distgate.cli", *arguments],
            timeout=TIMEOUT,
            env={**self.world.environment, **settings},
        )
        _give_to_runs(self.world.images_dir)
        self.deadline.reset(self.patience)

    def _prefect(self) -> None:
        self._wait([prefect_server.SERVER, RELAY])
        environment = {**self.world.environment, "PATH": f"{PROGRAM}/.venv/bin:{os.environ['PATH']}"}
        run(["deploy/register", "docker"], timeout=prefect_server.DEPLOY_SECONDS, env=environment, cwd=PROGRAM)
        prefect_server.pause_schedules(self.prefect)
        save_service(self.state, self._ours("reconciler"))
        self.add_workers()
        save_service(self.state, self._ours("intake", Health("consumer", f"{self.world.amqp_url}#{QUEUE}")))

    def _worker(self) -> Service:
        """As distgate-worker@.service starts it, but for the type of the pool."""
        port = str(self.prefect.worker_port)
        environment = {
            **_site_environment(self.world),
            "PATH": f"{PROGRAM}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            # The checkout may be in a home directory that the account cannot read.
            "PYTHONPATH": f"{PROGRAM}:{PROGRAM}/messages",
            "HOME": str(DATA),
            "PREFECT_HOME": str(DATA / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": port,
            "DISTGATE_HEALTH_EVERY": "15",
        }
        account = ("setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups", "--")
        arguments = ("-m", "distgate.cli", "worker", "--type", "docker", "--with-healthcheck")
        return Service(
            WORKER,
            (*account, f"{PROGRAM}/.venv/bin/python", *arguments),
            environment=environment,
            health=Health("worker", f"http://127.0.0.1:{port}/health#{_health_of_the_host()}"),
            after=WORKER_AFTER,
            grace=20,
            cwd=str(DATA),
        )

    def _bridge_relay(self) -> Service:
        addresses = [getattr(self.world, entry.name) for entry in fields(World)]
        ports = {_port(address) for address in addresses if isinstance(address, str) and _port(address)} | {
            self.repository_port
        }
        argv = (sys.executable, "-m", "lab.sites.containers", "--pass-on", *map(str, sorted(ports)))
        return Service(RELAY, argv, health=Health("tcp", f"{BRIDGE}:{self.repository_port}"))

    def _repository(self, directory: Path) -> Service:
        arguments = (
            "-m",
            "http.server",
            "--bind",
            "127.0.0.1",
            "--directory",
            str(directory),
            str(self.repository_port),
        )
        health = Health("http", f"http://127.0.0.1:{self.repository_port}/repodata/repomd.xml")
        return Service(REPOSITORY, (sys.executable, *arguments), health=health)


def pass_on(ports: list[int]) -> None:
    """Carry every connection to a port of the bridge's address to the same port of loopback, for ever."""
    for port in ports:
        GuestRelay(socket.create_server((BRIDGE, port)), port, connections=_CONNECTIONS).start()
    threading.Event().wait()


def _become_a_site_s_host() -> None:
    """What docs/deploy.md has an administrator do before anything is started."""
    if not is_sealed():
        raise ConfigurationError(
            "a site of containers makes accounts and changes /etc",
            hint="it is for a sealed host: lab/sites/sealed_host.py",
        )
    for directory in {SETTINGS, DATA, PROGRAM} - {PROJECT}:  # of the host around, which keeps it
        remove_tree(directory, ignore_errors=True)
    home = ("--home-dir", DATA, "--create-home", "--groups", "kvm,docker")
    _do("useradd", "--system", "--uid", str(USER_ID), *home, ACCOUNT)
    _do("usermod", "--add-subuids", "1000000-1065535", "--add-subgids", "1000000-1065535", ACCOUNT)
    _do("install", "-d", "-o", ACCOUNT, "-g", ACCOUNT, DATA, *(DATA / name for name in DIRECTORIES))
    _do("install", "-d", "-m", "755", SETTINGS, PROGRAM)
    if PROJECT != PROGRAM:
        mount(str(PROJECT), str(PROGRAM), "", MS_BIND)


def _do(*argv: str | Path) -> None:
    run(list(argv), timeout=30)


def _health_of_the_host() -> Path:
    """Where the worker says how its host is, by the account's default."""
    return health_file(DATA / ".local/state/distgate/workers", socket.gethostname())


def _write_settings(world: World) -> None:
    path = SETTINGS / "distgate.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in _site_environment(world).items()))
    path.chmod(0o640)
    shutil.chown(path, "root", ACCOUNT)


def _site_environment(world: World) -> dict[str, str]:
    site = {
        "PREFECT_LOCAL_STORAGE_PATH": str(DATA / "results"),
        # Its containers have other names.
        "DISTGATE_HOST": socket.gethostname(),
        "DISTGATE_GUEST_SLOTS": "1",
    }
    return {**{name: value for name, value in world.environment.items() if name not in _LAB_ONLY}, **site}


def _as_containers_see_it(world: World) -> World:
    values = {entry.name: getattr(world, entry.name) for entry in fields(World)}
    moved: dict[str, Any] = {
        name: address.replace("127.0.0.1", BRIDGE) for name, address in values.items() if isinstance(address, str)
    }
    return replace(world, **moved)


def _give_to_runs(directory: Path) -> None:
    _do("chown", "--recursive", f"{ACCOUNT}:", directory)


def _port(address: str) -> int:
    """The port of an address on the bridge; 0 for anything else."""
    _, bridge, rest = address.partition(f"{BRIDGE}:")
    return int(rest.partition("/")[0]) if bridge else 0


def main() -> None:
    """Start the site and return when it is whole."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--pass-on", type=int, nargs="+", metavar="PORT")
    options = parser.parse_args()
    if options.pass_on:
        pass_on(options.pass_on)
    else:
        ContainerSite(options.state.resolve(), options.cache.expanduser().resolve(), print).run()


if __name__ == "__main__":
    main()
