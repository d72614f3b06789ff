"""PostgreSQL from the distribution's package, as a server of the lab's own: no system service, loopback only.

PostgreSQL refuses to run as root. For root it therefore runs in a user namespace in which root is another account:
its files stay root's, in whatever directory, and it has no right of root's left.
"""

from __future__ import annotations

import os
import pwd
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import remove_tree
from distgate.process import run
from lab.servers.ports import free_ports
from lab.servers.service import Health, Service, read_json, write_json

#: Debian keeps the programs of each version apart, Fedora keeps one version on the path.
PROGRAMS = ("/usr/lib/postgresql/*/bin", "/usr/bin")
NAME = "postgresql"
USER = "distgate"
#: One for Prefect's server, one for the ledger.
PREFECT, LEDGER = "prefect", "distgate"
_MAKE_SECONDS = 180.0
_CONFIGURATION = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
# Prefect's server keeps a pool for each of its processes.
max_connections = 100
shared_buffers = 64MB
"""


@dataclass(frozen=True)
class Postgresql:
    """Where a PostgreSQL of the lab lives and listens."""

    directory: Path
    port: int
    password: str

    def url(self, database: str, driver: str = "psycopg") -> str:
        """The SQLAlchemy URL of a database: ``driver`` is psycopg for the ledger, asyncpg for Prefect's server."""
        return f"postgresql+{driver}://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def service(self) -> Service:
        """The server; it counts as healthy when it takes logins."""
        return Service(
            NAME,
            (*_account(), str(programs() / "postgres"), "-D", str(self.directory / "data")),
            health=Health("postgresql", f"127.0.0.1:{self.port}"),
            grace=20,
        )


def programs() -> Path:
    """The directory with PostgreSQL's own programs, the newest version where there are several.

    Raises ConfigurationError when PostgreSQL is not installed.
    """
    directories = [
        path for base in PROGRAMS for path in Path("/").glob(base.lstrip("/")) if (path / "initdb").exists()
    ]
    if not directories:
        raise ConfigurationError("PostgreSQL is not installed", hint="install the package postgresql")
    return max(directories, key=_version)


def _version(directory: Path) -> int:
    name = directory.parent.name
    return int(name) if name.isdigit() else 0


def prepare(directory: Path) -> Postgresql:
    """The server that lives in ``directory``, made with its databases on the first call and then the same."""
    record = directory / "postgresql.json"
    fields = read_json(record)
    if fields is None:
        fields = {"port": free_ports(1)[0], "password": secrets.token_hex(16)}
        directory.mkdir(parents=True, exist_ok=True)
        server = Postgresql(directory, **fields)
        _make(server)
        write_json(record, fields)
    return Postgresql(directory, **fields)


def _make(server: Postgresql) -> None:
    data = server.directory / "data"
    remove_tree(data, ignore_errors=True)  # of a first call that was broken off
    with tempfile.NamedTemporaryFile("w", dir=server.directory) as password:
        password.write(server.password)
        password.flush()
        options = ("--pgdata", data, "--username", USER, "--pwfile", password.name, "--auth", "scram-sha-256")
        locale = ("--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
        _run([str(programs() / "initdb"), *map(str, options), *locale])
    (data / "postgresql.auto.conf").write_text(_CONFIGURATION.format(port=server.port))
    create = "".join(f"CREATE DATABASE {database} OWNER {USER};\n" for database in (PREFECT, LEDGER))
    _run([str(programs() / "postgres"), "--single", "-D", str(data), "postgres"], create)


def _run(argv: Sequence[str], stdin: str | None = None) -> None:
    run([*_account(), *argv], timeout=_MAKE_SECONDS, stdin=stdin, error=InfrastructureError)


def _account() -> tuple[str, ...]:
    """What to put before a command so that root runs it under another account; nothing for an ordinary user."""
    if os.geteuid() != 0:
        return ()
    # initdb wants an account that has a name; which one it is does not matter.
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    account = accounts.get("postgres") or accounts["nobody"]
    return ("unshare", "--user", f"--map-user={account.pw_uid}", f"--map-group={account.pw_gid}", "--")
