"""The whole lab: what is started in which order, where everything is, and its end."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from distgate.errors import Cancelled, ConfigurationError, InfrastructureError
from distgate.guests.libvirt_connection import reap
from distgate.process import run
from distgate.settings import settings
from distgate.steps import Progress
from distgate.waiting import Deadline
from lab import teardown
from lab.dist_git import demo_package, host_tests
from lab.dist_git.repository import install_hook, repository_path
from lab.distribution.rpm_repository import ensure_repository
from lab.images.base_image import LIMIT, ensure_base, key_of, store_root, write_kickstart
from lab.servers import prefect_server, rabbitmq
from lab.servers.ports import free_ports
from lab.servers.prefect_server import RUNS, PrefectServer
from lab.servers.process_table import identify
from lab.servers.rabbitmq import Broker
from lab.servers.service import Health, Service, read_json, save_service, wanted_services, write_json
from lab.servers.supervisor import start_supervisor, supervisor_of, wait_healthy
from lab.start_lock import ensure_writable, refuse_half_up, starting

#: The directory with prefect.yaml: the worker runs flows from here.
PROJECT = Path(__file__).parents[1]
SITE = "lab"
QUEUE = "distgate.triggers"
#: The branch that the lab's Atomic Host is made of.
ATOMIC_BRANCH = demo_package.ATOMIC_BRANCH
DIST_GIT, KOJI = "dist-git", "koji-hub"
#: Without these a worker's doctor would find its host unfit. The relay is among the first to open the ledger.
WORKER_AFTER = (prefect_server.SERVER, KOJI, "relay")
#: The account that the lab's hub knows; its password is the same word.
KOJI_USER = "distgate"
#: That it runs is all that is asked of a service.
ALIVE = Health()
#: Seconds for all services to be healthy once the images are there: a minute on two cores, more on busy ones.
START_SECONDS = 360.0
#: Seconds that a lab which is up, but has just lost a service, gets to be whole again.
HEAL_SECONDS = 90.0


@dataclass(frozen=True)
class World:
    """Where everything of a running lab is: URLs without a slash at the end, and directories on this host."""

    state: Path
    cache: Path
    amqp_url: str
    exchange: str
    queue: str
    prefect_api_url: str
    prefect_ui_url: str
    prefect_home: Path
    dist_git_url: str
    demo_repository: Path
    koji_hub_url: str
    koji_topurl: str
    artifacts_dir: Path
    artifacts_url: str
    ledger_url: str
    guests_dir: Path
    images_dir: Path
    images_key: Path
    kickstart: Path
    trees_dir: Path
    trees_url: str
    package_lists: Path
    host_tests: str
    site: str = SITE
    images_limit: str = LIMIT
    metrics_url: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """What a process of ours needs to work in this lab: the DISTGATE_ settings and Prefect's address."""
        return {
            "DISTGATE_SITE": self.site,
            "DISTGATE_LEDGER_URL": self.ledger_url,
            "DISTGATE_AMQP_URL": self.amqp_url,
            "DISTGATE_EXCHANGE": self.exchange,
            "DISTGATE_QUEUE": self.queue,
            "DISTGATE_UI_URL": self.prefect_ui_url,
            "DISTGATE_ARTIFACTS_DIR": str(self.artifacts_dir),
            "DISTGATE_ARTIFACTS_URL": self.artifacts_url,
            # One host, no network in between: silence means death sooner here.
            "DISTGATE_RUN_LEASE": "30",
            # One commit is the business of one pipeline here: two cores are enough for one run at a time.
            "DISTGATE_PIPELINES": '["allpackages", "atomic"]',
            "DISTGATE_BRANCHES": json.dumps([branch for branch in demo_package.BRANCHES if branch != ATOMIC_BRANCH]),
            "DISTGATE_ATOMIC_BRANCHES": json.dumps([ATOMIC_BRANCH]),
            "DISTGATE_PACKAGE_LISTS": str(self.package_lists),
            "DISTGATE_IMAGE_STORE": str(self.images_dir),
            "DISTGATE_IMAGE_STORE_LIMIT": self.images_limit,
            "DISTGATE_GUESTS_DIR": str(self.guests_dir),
            "DISTGATE_WORKER_STATE": str(self.state / "workers"),
            "DISTGATE_FREE_DISK": "500M",
            "DISTGATE_METRICS_LISTEN": self.metrics_url.removeprefix("http://").partition("/")[0],
            # What the caller's own settings try out.
            "DISTGATE_COMPOSE_WAY": settings().compose_way,
            "DISTGATE_COMPOSE_DRIVER": settings().compose_driver,
            "DISTGATE_LAB_STATE": str(self.state),
            "DISTGATE_CACHE_DIR": str(self.cache),
            "PREFECT_API_URL": self.prefect_api_url,
            "PREFECT_UI_URL": self.prefect_ui_url,
            "PREFECT_HOME": str(self.prefect_home),
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
            # Tools of the virtual environment first (ansible), and those that ordinary users lack on their PATH.
            "PATH": _path(Path(sys.executable).parent),
        }

    @classmethod
    def load(cls, state: Path) -> World:
        """The lab that is up in ``state``; raises ConfigurationError when none is."""
        return cls.read(state.resolve() / "world.json")

    @classmethod
    def read(cls, path: Path) -> World:
        """The lab described by the file ``path``."""
        values = read_json(path)
        if values is None:
            raise ConfigurationError(f"no lab is up in {path.parent}", hint="./run lab up starts one")
        for name in (entry.name for entry in fields(cls) if entry.type == "Path"):
            values[name] = Path(values[name])
        return cls(**values)

    def save(self, path: Path) -> None:
        """Write what ``read`` reads."""
        values: dict[str, Any] = asdict(self)
        write_json(path, {name: str(value) for name, value in values.items()})


def _path(first: Path) -> str:
    """Ours with ``first`` before all else; each directory once, however often a shell takes the lab's settings."""
    directories = [str(first), *os.environ.get("PATH", "/usr/bin:/bin").split(":"), "/usr/sbin", "/sbin"]
    return ":".join(dict.fromkeys(directories))


def up(state: Path, cache: Path, progress: Progress) -> World:
    """Start the lab in ``state`` and return when everything in it is healthy; one that is up is left as it is.

    What is costly to make is made once below ``cache``. Raises ConfigurationError when the lab is half up or
    another process is starting it, and the first error on the way, after ending what was started.
    """
    state, cache = state.resolve(), cache.expanduser().resolve()
    ensure_writable(state, "DISTGATE_LAB_STATE", 0o700)
    ensure_writable(cache, "DISTGATE_CACHE_DIR", 0o755)
    with starting(state):
        if supervisor_of(state) and (state / "world.json").exists():
            return _already_up(state, progress)
        refuse_half_up(state)
        teardown.down(state, lambda _: None)  # records of a lab that ended without us, as at a power cut
        (state / "world.json").unlink(missing_ok=True)
        process = identify(os.getpid())
        if process:
            teardown.record_starter(state, process)
        return assemble(state, cache, progress)


def assemble(state: Path, cache: Path, progress: Progress) -> World:
    """What ``up`` does once it has looked: start what does not run yet, and return when the lab is whole."""
    return Start(state.resolve(), cache.expanduser().resolve(), progress).run()


def down(state: Path, progress: Progress, *, remove: bool = False) -> None:
    """End the lab, whatever is left of it; see lab.teardown. ``remove`` deletes what it wrote, too."""
    state = state.resolve()
    teardown.down(state, progress)
    (state / "world.json").unlink(missing_ok=True)
    reap(state / "guests")
    if remove:
        teardown.down(state, lambda _: None, remove=True)


class Start:
    """One start of the lab, in threads of one pool. A lab of another shape (lab.sites) changes what it has."""

    patience = START_SECONDS

    def __init__(self, state: Path, cache: Path, progress: Progress) -> None:
        self.state, self.cache, self.progress = state, cache, progress
        self.broker: Broker = rabbitmq.prepare(state / "rabbitmq")
        self.prefect: PrefectServer = prefect_server.prepare(state / "prefect")
        self.world = _plan(state, cache, self.broker, self.prefect)
        self.deadline = Deadline(self.patience)
        self.ended = threading.Event()

    def run(self) -> World:
        draft = self.state / "world.draft.json"
        self.world.save(draft)
        self.progress(f"starting the lab in {self.state}")
        host_tests.seed(self.state / "dist-git")
        for service in (*self.broker.services(), *self.prefect_services(), self._dist_git()):
            save_service(self.state, service)
        start_supervisor(self.state)
        pool = ThreadPoolExecutor(4, thread_name_prefix="lab-up")
        try:
            _all([pool.submit(step) for step in (self._images, self._sources, self._prefect, self._bus)])
            self._wait([service.name for service in wanted_services(self.state)])
        except BaseException:
            self.progress("the start failed; ending what was started")
            self._end(pool)
            raise
        pool.shutdown()
        draft.rename(self.state / "world.json")
        self.progress("the lab is up")
        return self.world

    def prefect_services(self) -> list[Service]:
        """What makes up the Prefect server."""
        return [self.prefect.server()]

    def add_workers(self) -> None:
        """Start what takes runs, and tell Prefect of the places that they are about."""
        register(self.state / "world.draft.json", self.world)
        worker = self.prefect.worker(self.world.environment, PROJECT, WORKER_AFTER)
        save_service(self.state, prefect_server.gated(worker, SITE, RUNS, self.state / "workers"))

    def _end(self, pool: ThreadPoolExecutor) -> None:
        """Nothing is left when this returns: neither what was started nor the threads that would start more."""
        self.ended.set()
        self.deadline.reset(0)
        teardown.down(self.state, self.progress)
        pool.shutdown(cancel_futures=True)
        teardown.down(self.state, lambda _: None)  # what the threads had started before they noticed

    def _report(self, text: str) -> None:
        if self.ended.is_set():
            raise Cancelled("the start of the lab was broken off")
        self.progress(text)

    def _images(self) -> None:
        repository = ensure_repository(self.cache, self._report)
        save_service(self.state, self._koji())
        shutil.copyfile(write_kickstart(self.cache, repository), self.world.kickstart)
        ensure_base(self.cache, self._report)
        # The first time this takes minutes; what waits for health counts from here.
        self.deadline.reset(self.patience)

    def _sources(self) -> None:
        repository = demo_package.seed(self.state / "dist-git", self.cache, self._report)
        install_hook(repository, {"url": self.world.amqp_url, "exchange": self.world.exchange})
        self.world.package_lists.mkdir(exist_ok=True)
        (self.world.package_lists / f"{ATOMIC_BRANCH}.txt").write_text(f"{demo_package.NAME}\n")

    def _prefect(self) -> None:
        self._wait([prefect_server.SERVER])
        prefect_server.ensure_pool(self.prefect)
        save_service(self.state, self._ours("reconciler"))
        self.add_workers()
        prefect_server.deploy(self.prefect, PROJECT, self.world.environment, self._report)
        # Only now: what the intake accepts must find its automation.
        save_service(self.state, self._ours("intake", Health("consumer", f"{self.world.amqp_url}#{QUEUE}")))

    def _bus(self) -> None:
        self._wait(["rabbitmq"])
        self._report("the broker is there")
        save_service(self.state, self._ours("relay"))
        # No reporter: no channel is configured here.
        listens = self.world.environment["DISTGATE_METRICS_LISTEN"]
        save_service(self.state, self._ours("metrics", Health("tcp", listens)))

    def _wait(self, names: list[str]) -> None:
        wait_healthy(self.state, names, self.deadline)

    def _dist_git(self) -> Service:
        root, artifacts, url = self.state / "dist-git", self.world.artifacts_dir, self.world.dist_git_url
        trees = self.world.trees_dir
        for directory in (root, artifacts, trees):
            directory.mkdir(parents=True, exist_ok=True)
        directories = ("--root", root, "--artifacts", artifacts, "--trees", trees)
        arguments = (*map(str, directories), "--port", _port_of(url))
        health = Health("http", f"{url}/health")
        return Service(DIST_GIT, _module("lab.dist_git.server", *arguments), self.world.environment, health)

    def _koji(self) -> Service:
        url = self.world.koji_hub_url.removesuffix("/kojihub")
        arguments = ("--state", self.state / "koji", "--cache", self.cache, "--dist-git", self.world.dist_git_url)
        options = ("--user", KOJI_USER, "--port", _port_of(url))
        return Service(
            KOJI,
            _module("lab.koji.hub", *map(str, arguments), *options),
            self.world.environment,
            Health("http", f"{url}/health"),
            after=(DIST_GIT,),
        )

    def _ours(self, name: str, health: Health = ALIVE) -> Service:
        return service_of_ours(name, self.world.environment, health)


def service_of_ours(name: str, environment: Mapping[str, str], health: Health = ALIVE) -> Service:
    """The module ``name`` of services/ as a service, started once what it talks to is there."""
    after = {"relay": ("rabbitmq",), "reconciler": (prefect_server.SERVER,), "metrics": ()}.get(
        name, ("rabbitmq", prefect_server.SERVER)
    )
    return Service(name, _module(f"services.{name}"), environment, health, after)


def register(description: Path, world: World) -> None:
    """Save the lab's block documents in its Prefect server: a process of its own, for Prefect reads its settings
    when it is imported."""
    run(
        _module("lab.registration", "--world", str(description)),
        timeout=120,
        env=world.environment,
        hint="the lab's blocks are described in lab/registration.py",
    )


def _plan(state: Path, cache: Path, broker: Broker, prefect: PrefectServer) -> World:
    record = state / "ports.json"
    ports = read_json(record)
    names = ("dist_git", "koji", "metrics")
    if ports is None or set(names) - set(ports):
        ports = dict(zip(names, free_ports(len(names)), strict=True)) | (ports or {})
        write_json(record, ports)
    dist_git_url, koji_url, metrics_url = (f"http://127.0.0.1:{ports[name]}" for name in names)
    return World(
        state=state,
        cache=cache,
        amqp_url=broker.url,
        exchange=rabbitmq.EXCHANGE,
        queue=QUEUE,
        prefect_api_url=prefect.api_url,
        prefect_ui_url=prefect.ui_url,
        prefect_home=prefect.home,
        dist_git_url=dist_git_url,
        demo_repository=repository_path(state / "dist-git", demo_package.NAME),
        koji_hub_url=f"{koji_url}/kojihub",
        koji_topurl=f"{koji_url}/kojifiles",
        artifacts_dir=state / "artifacts",
        artifacts_url=f"{dist_git_url}/artifacts",
        ledger_url=f"sqlite:///{state / 'ledger.db'}",
        guests_dir=state / "guests",
        images_dir=store_root(cache),
        images_key=key_of(cache),
        kickstart=state / "image.ks",
        trees_dir=state / "trees",
        trees_url=f"{dist_git_url}/trees",
        package_lists=state / "package-lists",
        host_tests=f"{dist_git_url}/tests/{host_tests.NAME}.git",
        metrics_url=f"{metrics_url}/metrics",
    )


def _already_up(state: Path, progress: Progress) -> World:
    try:
        wait_healthy(state, [service.name for service in wanted_services(state)], Deadline(HEAL_SECONDS))
    except InfrastructureError as error:
        raise ConfigurationError(
            f"the lab in {state} is half up: {error.message}",
            hint="./run lab status shows it, ./run lab down ends it",
            evidence=error.evidence,
        ) from error
    progress("the lab is up already")
    return World.load(state)


def _all(steps: list[Future[None]]) -> None:
    """Return when every step is done; the first error is raised at once."""
    done, _ = wait(steps, return_when=FIRST_EXCEPTION)
    for step in done:
        step.result()


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", name, *arguments)


def _port_of(url: str) -> str:
    return url.rpartition(":")[2]
