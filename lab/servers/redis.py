"""Redis from the distribution's package, as a server of the lab's own: no system service, loopback only.

Prefect's processes tell one another through it what happened, and keep there who holds which slot.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError
from distgate.process import on_path
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service, read_json, write_json

#: Fedora has the fork Valkey in Redis' place; it reads the same configuration and speaks the same protocol.
PROGRAMS = ("redis-server", "valkey-server")
NAME = "redis"
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {directory}
# Every write is in a file before it is answered, but for the last second's at a power cut: what Prefect was told
# outlives a kill of Redis as well as a restart.
appendonly yes
appendfsync everysec
save ""
databases 4
"""


@dataclass(frozen=True)
class Redis:
    """Where a Redis of the lab lives and listens."""

    directory: Path
    port: int
    password: str

    def url(self, database: int = 0) -> str:
        """The URL of one of its numbered databases, with the password."""
        return f"redis://default:{self.password}@127.0.0.1:{self.port}/{database}"

    def service(self) -> Service:
        """The server; it counts as healthy when it has read its file and answers."""
        return Service(
            NAME, (program(), str(self.directory / "redis.conf")), health=Health("redis", self.url()), grace=20
        )


def program() -> str:
    """The server's program. Raises ConfigurationError when neither Redis nor Valkey is installed."""
    for name in PROGRAMS:
        if on_path(name):
            return name
    raise ConfigurationError("Redis is not installed", hint="install the package redis-server (Fedora: valkey)")


def prepare(directory: Path) -> Redis:
    """The server that lives in ``directory``, made on the first call and the same on every later one."""
    record = directory / "redis.json"
    fields = read_json(record)
    if fields is None:
        fields = {"port": free_ports(1)[0], "password": secrets.token_hex(16)}
        directory.mkdir(parents=True, exist_ok=True)
        write_json(record, fields)
    server = Redis(directory, **fields)
    configuration = directory / "redis.conf"
    configuration.touch(mode=0o600)
    configuration.write_text(
        _CONFIGURATION.format(port=server.port, password=server.password, directory=directory.resolve())
    )
    return server
