"""Leader election at a ledger: of several processes of one role one leads, and its death frees the lock.

Two relays would send every message twice. For an SQLite ledger the lock is on a file beside it; for PostgreSQL it is
an advisory lock of a session in the ledger's database.
"""

from __future__ import annotations

import os
import socket
import threading
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from distgate import locks
from distgate.errors import InfrastructureError
from distgate.ledger.database import file_of

#: An advisory lock of ours has two numbers in PostgreSQL: this, and one for the role.
_LOCKS = 0x64697374
#: The lock of a host that vanished is free after about a minute; PostgreSQL would wait for hours.
_SESSION = (
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
    "SET idle_session_timeout = 0",
)
_HOLDER = """
SELECT activity.application_name FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
WHERE locktype = 'advisory' AND granted AND classid = :locks AND objid = :role AND objsubid = 2
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class LeaderLock(Protocol):
    """The right to be the one process of a role at a ledger."""

    @property
    def role(self) -> str:
        """The name of the role."""
        ...

    def acquire(self) -> bool:
        """Acquire the lock if it is free; return whether we hold it now. To be called again and again: a restart of
        the database frees the lock. Raises InfrastructureError when the lock cannot be tried."""
        ...

    def holder(self) -> str:
        """The process that holds it, empty when that is not known."""
        ...

    def close(self) -> None:
        """Release it."""
        ...


def open_leader_lock(url: str, role: str) -> LeaderLock:
    """The lock for ``role`` at the ledger at ``url``, not acquired yet. ConfigurationError when that is no URL."""
    if url.startswith("postgresql"):
        return SessionLeaderLock(url, role)
    file = file_of(url)
    # No other process can open a ledger in memory.
    return FileLeaderLock(file.with_name(f"{file.name}.{role}") if file else None, role)


class FileLeaderLock:
    """A lock on the file ``path``; without a path it is always free."""

    def __init__(self, path: Path | None, role: str) -> None:
        self.role = role
        self._path = path
        self._stream: IO[str] | None = None
        self._guard = threading.Lock()

    def acquire(self) -> bool:
        """See LeaderLock."""
        with self._guard:
            if self._path is None or self._stream is not None:
                return True
            try:
                self._stream = locks.try_lock(self._path, _holder_name(self.role))
            except OSError as error:
                raise InfrastructureError(
                    f"the lock {self._path} cannot be had: {error.strerror}", hint="is the ledger's disk full?"
                ) from error
            return self._stream is not None

    def holder(self) -> str:
        """See LeaderLock."""
        return str((self._path and locks.owner_of(self._path)) or "")

    def close(self) -> None:
        """See LeaderLock."""
        with self._guard:
            if self._stream is not None:
                self._stream.close()
                self._stream = None


class SessionLeaderLock:
    """An advisory lock, which PostgreSQL releases when the session that holds it ends."""

    def __init__(self, url: str, role: str) -> None:
        self.role = role
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self._numbers = {"locks": _LOCKS, "role": zlib.crc32(role.encode()) & 0x7FFFFFFF}
        self._session: Connection | None = None
        self._acquired = False
        self._guard = threading.Lock()

    def acquire(self) -> bool:
        """See LeaderLock."""
        with self._guard:
            try:
                session = self._session = self._session or self._connect()
                if self._acquired:
                    session.execute(sa.text("SELECT 1"))  # the lock lives as long as the session
                else:
                    query = sa.text("SELECT pg_try_advisory_lock(:locks, :role)")
                    self._acquired = bool(session.execute(query, self._numbers).scalar())
            except sa.exc.DBAPIError as error:
                self._release()
                raise InfrastructureError(
                    f"the leader lock of the {self.role} cannot be acquired: {error.orig}"
                ) from error
            return self._acquired

    def holder(self) -> str:
        """See LeaderLock."""
        with self._guard, suppress(sa.exc.DBAPIError):
            if self._session is not None:
                return str(self._session.execute(sa.text(_HOLDER), self._numbers).scalar() or "")
        return ""

    def close(self) -> None:
        """See LeaderLock."""
        with self._guard:
            self._release()

    def _connect(self) -> Connection:
        session = self._engine.connect()
        for setting in _SESSION:
            session.execute(sa.text(setting))
        name = sa.text("SELECT set_config('application_name', :name, false)")
        session.execute(name, {"name": f"{_holder_name(self.role)}, process {os.getpid()}"})
        return session

    def _release(self) -> None:
        session, self._session, self._acquired = self._session, None, False
        if session is not None:
            with suppress(sa.exc.DBAPIError):
                session.close()


def _holder_name(role: str) -> str:
    return f"{role} on {socket.gethostname()[:30]}"
