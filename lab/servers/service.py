"""A service as a record, its health check, and the files that the supervisor keeps of it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from distgate.doctor.health import read_health
from distgate.errors import ConfigurationError, DistgateError
from distgate.files import write_whole
from lab.servers.process_table import ProcessId

PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class Health:
    """A health check; calling it returns whether the running service does its work.

    ``process``: it runs. ``http``: ``target`` (a URL) answers 2xx. ``amqp``: ``target``
    (host:port) answers the protocol's greeting. ``tcp``: ``target`` accepts connections.
    ``consumer``: ``target`` is AMQP-URL#queue, and that queue has a consumer. ``postgresql``: ``target``
    (host:port) takes logins. ``redis``: ``target`` (a URL with the password) has read its data and answers.
    ``worker``: ``target`` is URL#FILE; the URL answers 2xx, and the file says that the worker takes runs.
    """

    kind: Literal["process", "http", "amqp", "tcp", "consumer", "postgresql", "redis", "worker"] = "process"
    target: str = ""

    def __call__(self) -> bool:
        if self.kind == "process":
            return True
        return _PROBES[self.kind](self.target)


@dataclass(frozen=True)
class Service:
    """A long-running process of the lab.

    ``after`` names the services that must be healthy before it is started; ``grace`` is how many seconds it gets
    between SIGTERM and SIGKILL. Its environment is what distgate.process passes on, and ``environment``.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    health: Health = Health()
    after: tuple[str, ...] = ()
    grace: float = 10.0
    cwd: str = ""


@dataclass(frozen=True)
class Running:
    """The last start of a service: ``since`` is in seconds since the epoch, ``restarts`` counts the starts before."""

    pid: int
    started: int
    since: float
    restarts: int = 0

    @property
    def process(self) -> ProcessId:
        return ProcessId(self.pid, self.started)


def service_log(state: Path, name: str) -> Path:
    """The file with all output of the service."""
    return state / "logs" / f"{name}.log"


def save_service(state: Path, service: Service) -> None:
    """Ask the supervisor of ``state`` to keep ``service`` running; the same name again replaces it.

    Raises ConfigurationError when services would wait for each other.
    """
    start_levels([*(other for other in wanted_services(state) if other.name != service.name), service])
    write_json(_services_directory(state) / f"{service.name}.json", asdict(service))


def forget_service(state: Path, name: str) -> None:
    """Take the service out of the supervisor's list; a running process is left alone."""
    (_services_directory(state) / f"{name}.json").unlink(missing_ok=True)


def load_service(state: Path, name: str) -> Service:
    """The service of that name; raises ConfigurationError when there is none."""
    record = read_json(_services_directory(state) / f"{name}.json")
    if record is None:
        names = ", ".join(service.name for service in wanted_services(state)) or "none"
        raise ConfigurationError(f"the lab has no service {name}", hint=f"there are: {names}")
    return _parse(record)


def wanted_services(state: Path) -> list[Service]:
    """The services that ``state`` lists, each after those it depends on."""
    services = [
        _parse(data) for path in sorted(_services_directory(state).glob("*.json")) if (data := read_json(path))
    ]
    return [service for level in start_levels(services) for service in level]


def start_levels(services: list[Service]) -> list[list[Service]]:
    """The services in groups that can start at the same time; raises ConfigurationError for a circle."""
    pending, done, ordered = {service.name: service for service in services}, set[str](), list[list[Service]]()
    while pending:
        level = [service for service in pending.values() if not (set(service.after) & pending.keys() - done)]
        if not level:
            raise ConfigurationError(f"services wait for each other: {', '.join(sorted(pending))}")
        done |= {service.name for service in level}
        pending = {name: service for name, service in pending.items() if name not in done}
        ordered.append(level)
    return ordered


def record_start(state: Path, name: str, running: Running) -> None:
    """Write down a start."""
    write_json(state / "running" / f"{name}.json", asdict(running))


def last_start(state: Path, name: str) -> Running | None:
    """The last start of a service, dead or alive."""
    record = read_json(state / "running" / f"{name}.json")
    return Running(**record) if record else None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace ``path`` in one step; only its owner may read it, for URLs carry passwords."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(data, indent=1), mode=0o600)


def read_json(path: Path) -> dict[str, Any] | None:
    """What ``write_json`` wrote, or None when there is no such file."""
    with contextlib.suppress(FileNotFoundError):
        data: dict[str, Any] = json.loads(path.read_text())
        return data
    return None


def _services_directory(state: Path) -> Path:
    return state / "services"


def _parse(data: Mapping[str, Any]) -> Service:
    fields = dict(data)
    health = Health(**fields.pop("health"))
    return Service(**(fields | {"argv": tuple(fields["argv"]), "after": tuple(fields["after"]), "health": health}))


def _address(target: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    return host, int(port)


def _accepts(target: str) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(_address(target), PROBE_SECONDS):
        return True
    return False


def _answers_amqp(target: str) -> bool:
    # A wrong protocol header makes the broker answer with the one it speaks, once it is ready for clients.
    with contextlib.suppress(OSError), socket.create_connection(_address(target), PROBE_SECONDS) as connection:
        connection.settimeout(PROBE_SECONDS)
        connection.sendall(b"AMQP\x00\x00\x00\x00")
        return connection.recv(8).startswith(b"AMQP")
    return False


def _answers_http(target: str) -> bool:
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(target, timeout=PROBE_SECONDS, trust_env=False).is_success
    return False


def _takes_runs(target: str) -> bool:
    url, _, file = target.partition("#")
    health = read_health(Path(file))
    return health is not None and health.fit and _answers_http(url)


def _is_consumed(target: str) -> bool:
    from distgate.bus.amqp import consumers_of

    url, _, queue = target.partition("#")
    with contextlib.suppress(DistgateError):
        return consumers_of(url, queue) > 0
    return False


def _takes_logins(target: str) -> bool:
    # The greeting of protocol 3.0 for a user and its end; a server that still starts answers E, an error.
    parameters = b"user\0probe\0database\0probe\0\0"
    greeting = struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters
    with contextlib.suppress(OSError), socket.create_connection(_address(target), PROBE_SECONDS) as connection:
        connection.settimeout(PROBE_SECONDS)
        connection.sendall(greeting)
        return connection.recv(1) == b"R"
    return False


def _answers_redis(target: str) -> bool:
    from redis import Redis, RedisError

    with contextlib.suppress(RedisError), Redis.from_url(target, socket_timeout=PROBE_SECONDS) as client:
        return bool(client.ping())
    return False


_PROBES: Mapping[str, Callable[[str], bool]] = {
    "http": _answers_http,
    "amqp": _answers_amqp,
    "tcp": _accepts,
    "consumer": _is_consumed,
    "postgresql": _takes_logins,
    "redis": _answers_redis,
    "worker": _takes_runs,
}
