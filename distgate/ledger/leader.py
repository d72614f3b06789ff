"""A seat at a ledger: of several processes of one role, one has it, and its death frees it.

Two relays would send every message twice. An SQLite ledger's seat is a lock on a file beside it; PostgreSQL's is an
advisory lock of a session in the ledger's database.
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

#: PostgreSQL's locks of ours have two numbers: this, and one for the role.
_SEATS = 0x64697374
#: A host that vanished lets go of its seat after about a minute; PostgreSQL would wait for hours.
_SESSION = (
    "SET tcp_keepalives_idle = 30",
    "SET tcp_keepalives_interval = 10",
    "SET tcp_keepalives_count = 3",
    "SET idle_session_timeout = 0",
)
_HOLDER = """
SELECT activity.application_name FROM pg_locks JOIN pg_stat_activity AS activity USING (pid)
WHERE locktype = 'advisory' AND granted AND classid = :seats AND objid = :role AND objsubid = 2
AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class LeaderLock(Protocol):
    """The right to be the one process of a role at a ledger."""

    @property
    def role(self) -> str:
        """The name of the role."""
        ...

    def take(self) -> bool:
        """Whether we have the seat now; it is taken if it is free. To be asked again and again: a seat at a database
        that was restarted is free anew. Raises InfrastructureError when that cannot be known."""
        ...

    def holder(self) -> str:
        """Who has it, as far as that is known."""
        ...

    def close(self) -> None:
        """Leave it to others."""
        ...


def open_leader_lock(url: str, role: str) -> LeaderLock:
    """The seat of ``role`` at the ledger at ``url``, not taken yet. ConfigurationError when that is no URL."""
    if url.startswith("postgresql"):
        return SessionLeaderLock(url, role)
    file = file_of(url)
    # A ledger in memory has nobody else.
    return FileLeaderLock(file.with_name(f"{file.name}.{role}") if file else None, role)


class FileLeaderLock:
    """A seat by a lock on ``path``; None is always free."""

    def __init__(self, path: Path | None, role: str) -> None:
        self.role = role
        self._path = path
        self._stream: IO[str] | None = None
        self._turn = threading.Lock()

    def take(self) -> bool:
        """See Seat."""
        with self._turn:
            if self._path is None or self._stream is not None:
                return True
            try:
                self._stream = locks.try_lock(self._path, _own_name(self.role))
            except OSError as error:
                raise InfrastructureError(
                    f"the lock {self._path} cannot be had: {error.strerror}", hint="is the ledger's disk full?"
                ) from error
            return self._stream is not None

    def holder(self) -> str:
        """See Seat."""
        return str((self._path and locks.owner_of(self._path)) or "")

    def close(self) -> None:
        """See Seat."""
        with self._turn:
            if self._stream is not None:
                self._stream.close()
                self._stream = None


class SessionLeaderLock:
    """A seat by an advisory lock, which PostgreSQL gives back when the session that holds it ends."""

    def __init__(self, url: str, role: str) -> None:
        self.role = role
        self._engine = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
        self._numbers = {"seats": _SEATS, "role": zlib.crc32(role.encode()) & 0x7FFFFFFF}
        self._session: Connection | None = None
        self._held = False
        self._turn = threading.Lock()

    def take(self) -> bool:
        """See Seat."""
        with self._turn:
            try:
                session = self._session = self._session or self._connected()
                if self._held:
                    session.execute(sa.text("SELECT 1"))  # who has the session has the lock
                else:
                    query = sa.text("SELECT pg_try_advisory_lock(:seats, :role)")
                    self._held = bool(session.execute(query, self._numbers).scalar())
            except sa.exc.DBAPIError as error:
                self._leave()
                raise InfrastructureError(f"the seat of the {self.role} cannot be asked for: {error.orig}") from error
            return self._held

    def holder(self) -> str:
        """See Seat."""
        with self._turn, suppress(sa.exc.DBAPIError):
            if self._session is not None:
                return str(self._session.execute(sa.text(_HOLDER), self._numbers).scalar() or "")
        return ""

    def close(self) -> None:
        """See Seat."""
        with self._turn:
            self._leave()

    def _connected(self) -> Connection:
        session = self._engine.connect()
        for setting in _SESSION:
            session.execute(sa.text(setting))
        name = sa.text("SELECT set_config('application_name', :name, false)")
        session.execute(name, {"name": f"{_own_name(self.role)}, process {os.getpid()}"})
        return session

    def _leave(self) -> None:
        session, self._session, self._held = self._session, None, False
        if session is not None:
            with suppress(sa.exc.DBAPIError):
                session.close()


def _own_name(role: str) -> str:
    return f"{role} on {socket.gethostname()[:30]}"
