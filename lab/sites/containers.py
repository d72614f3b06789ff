"""A site whose runs are containers: what docs/deploy.md says of the Docker pool, in a sealed host with an engine.

``python -m lab.sites.containers --state DIR --cache DIR`` starts it there, as root; it ends with the host. Containers
reach the host by its address on their bridge, as they reach a site's servers by theirs. So every address that a run
is told is on the bridge, and a service there passes connections on to the lab's servers, which listen on loopback.
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
from distgate.process import run
from distgate.sandbox.kernel import MS_BIND, mount
from distgate.sandbox.relay import GuestRelay
from distgate.steps import Progress
from lab.distribution.rpm_repository import ensure_repository
from lab.images.base_image import BRANCH, KICKSTART, TIMEOUT, lab_kickstart
from lab.images.imagefactory import COMMAND
from lab.servers import postgresql, prefect_server
from lab.servers import service as services
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service
from lab.sites.container_engine import BRIDGE
from lab.sites.sealed_host import is_sealed
from lab.world import PROJECT, QUEUE, WORKER_AFTER, Start, World, register

#: Where docs/deploy.md has the project, the site's settings, and what runs share; jobs mount the last two.
PROGRAM, SETTINGS, PLACE = Path("/opt/distgate"), Path("/etc/distgate"), Path("/var/lib/distgate")
ACCOUNT, USER_ID = "distgate", 900
DIRECTORIES = ("images", "trees", "artifacts", "results", "guests", "prefect")
WORKER, REPOSITORY, FRONT_DOOR = "worker", "repository", "front-door"
#: Connections at a time to each server: those of all services and runs together.
_CONNECTIONS = 256
#: Of a lab's environment, what is its own business and not that of a site.
_OF_THE_LAB = {
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
                artifacts_dir=PLACE / "artifacts",
                guests_dir=PLACE / "guests",
                images_dir=PLACE / "images",
                images_key=PLACE / "images/ssh/id_ed25519",
                trees_dir=PLACE / "trees",
                kickstart=SETTINGS / "image.ks",
            )
        )
        _write_settings(self.world)

    def prefect_services(self) -> list[Service]:
        """Prefect's server, the ledger's, and the way to all servers from the bridge."""
        return [self.prefect.server(), self.database.service(), self._front_door()]

    def add_workers(self) -> None:
        """The places of the site, then its worker: a doctor that misses one lets it take no runs."""
        register(self.state / "world.draft.json", self.world)
        services.save(self.state, self._worker())

    def _images(self) -> None:
        repository = ensure_repository(self.cache, self._tell)
        services.save(self.state, self._koji())
        services.save(self.state, self._repository(repository.path))
        self._wait([REPOSITORY, FRONT_DOOR])
        served = f"http://{BRIDGE}:{self.repository_port}"
        self.world.kickstart.write_text(lab_kickstart(KICKSTART, repository).replace(repository.url, served))
        self._tell("building and qualifying a base image")
        own = {"DISTGATE_IMAGE_FACTORY": json.dumps(COMMAND), "DISTGATE_GUESTS_DIR": str(self.state / "builder")}
        words = ("images", "refresh", "--branch", BRANCH, "--kickstart", str(self.world.kickstart))
        run([sys.executable, "-m", "distgate.cli", *words], timeout=TIMEOUT, env={**self.world.environment, **own})
        _give_to_runs(self.world.images_dir)
        self.deadline.reset(self.patience)

    def _prefect(self) -> None:
        self._wait([prefect_server.SERVER, FRONT_DOOR])
        own = {**self.world.environment, "PATH": f"{PROGRAM}/.venv/bin:{os.environ['PATH']}"}
        run(["deploy/register", "docker"], timeout=prefect_server.DEPLOY_SECONDS, env=own, cwd=PROGRAM)
        prefect_server.pause_schedules(self.prefect)
        services.save(self.state, self._ours("reconciler"))
        self.add_workers()
        services.save(self.state, self._ours("intake", Health("consumer", f"{self.world.amqp_url}#{QUEUE}")))

    def _worker(self) -> Service:
        """As distgate-worker@.service starts it, but for the type of the pool."""
        port = str(self.prefect.worker_port)
        own = {
            **_site_environment(self.world),
            "PATH": f"{PROGRAM}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin",
            # The checkout may be in somebody's home, where the account may not look.
            "PYTHONPATH": f"{PROGRAM}:{PROGRAM}/messages",
            "HOME": str(PLACE),
            "PREFECT_HOME": str(PLACE / "prefect"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
            "PREFECT_WORKER_WEBSERVER_PORT": port,
            "DISTGATE_HEALTH_EVERY": "15",
        }
        account = ("setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--init-groups", "--")
        words = ("-m", "distgate.cli", "worker", "--type", "docker", "--with-healthcheck")
        return Service(
            WORKER,
            (*account, f"{PROGRAM}/.venv/bin/python", *words),
            environment=own,
            health=Health("worker", f"http://127.0.0.1:{port}/health#{_health_of_the_host()}"),
            after=WORKER_AFTER,
            grace=20,
            cwd=str(PLACE),
        )

    def _front_door(self) -> Service:
        addresses = [getattr(self.world, one.name) for one in fields(World)]
        ports = {_port(one) for one in addresses if isinstance(one, str) and _port(one)} | {self.repository_port}
        words = (sys.executable, "-m", "lab.sites.containers", "--pass-on", *map(str, sorted(ports)))
        return Service(FRONT_DOOR, words, health=Health("tcp", f"{BRIDGE}:{self.repository_port}"))

    def _repository(self, directory: Path) -> Service:
        words = ("-m", "http.server", "--bind", "127.0.0.1", "--directory", str(directory), str(self.repository_port))
        health = Health("http", f"http://127.0.0.1:{self.repository_port}/repodata/repomd.xml")
        return Service(REPOSITORY, (sys.executable, *words), health=health)


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
    for left in {SETTINGS, PLACE, PROGRAM} - {PROJECT}:  # of the host around, which keeps it
        shutil.rmtree(left, ignore_errors=True)
    home = ("--home-dir", PLACE, "--create-home", "--groups", "kvm,docker")
    _do("useradd", "--system", "--uid", str(USER_ID), *home, ACCOUNT)
    _do("usermod", "--add-subuids", "1000000-1065535", "--add-subgids", "1000000-1065535", ACCOUNT)
    _do("install", "-d", "-o", ACCOUNT, "-g", ACCOUNT, PLACE, *(PLACE / one for one in DIRECTORIES))
    _do("install", "-d", "-m", "755", SETTINGS, PROGRAM)
    if PROJECT != PROGRAM:
        mount(str(PROJECT), str(PROGRAM), "", MS_BIND)


def _do(*words: str | Path) -> None:
    run(list(words), timeout=30)


def _health_of_the_host() -> Path:
    """Where the worker says how its host is, by the account's default."""
    return health_file(PLACE / ".local/state/distgate/workers", socket.gethostname())


def _write_settings(world: World) -> None:
    path = SETTINGS / "distgate.env"
    path.write_text("".join(f"{name}={value}\n" for name, value in _site_environment(world).items()))
    path.chmod(0o640)
    shutil.chown(path, "root", ACCOUNT)


def _site_environment(world: World) -> dict[str, str]:
    own = {
        "PREFECT_LOCAL_STORAGE_PATH": str(PLACE / "results"),
        # Its containers have other names.
        "DISTGATE_HOST": socket.gethostname(),
        "DISTGATE_GUEST_SLOTS": "1",
    }
    return {**{name: value for name, value in world.environment.items() if name not in _OF_THE_LAB}, **own}


def _as_containers_see_it(world: World) -> World:
    known = {one.name: getattr(world, one.name) for one in fields(World)}
    moved: dict[str, Any] = {
        name: one.replace("127.0.0.1", BRIDGE) for name, one in known.items() if isinstance(one, str)
    }
    return replace(world, **moved)


def _give_to_runs(directory: Path) -> None:
    _do("chown", "--recursive", f"{ACCOUNT}:", directory)


def _port(address: str) -> int:
    """The port of an address on the bridge; 0 for anything else."""
    _, found, rest = address.partition(f"{BRIDGE}:")
    return int(rest.partition("/")[0]) if found else 0


def main() -> None:
    """Start the site and return when it is whole."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--pass-on", type=int, nargs="+", metavar="PORT")
    words = parser.parse_args()
    if words.pass_on:
        pass_on(words.pass_on)
    else:
        ContainerSite(words.state.resolve(), words.cache.expanduser().resolve(), print).run()


if __name__ == "__main__":
    main()
