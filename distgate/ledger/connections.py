"""The ledger's database as runs open it: by the driver of SQLite or PostgreSQL itself, without SQLAlchemy.

What else the URLs of SQLAlchemy can say, and the making of tables, is left to distgate.ledger.ledger, which
a run then imports.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Protocol

from distgate.errors import InfrastructureError
from distgate.ledger.runs import RunLedger

#: To be raised with every change of a table of distgate.ledger.tables; a ledger of another number is refused, never
#: guessed at.
SCHEMA = 4
#: Seconds for which a writer of SQLite waits for others.
PATIENCE = 60
#: Other processes write too: wait for them, and lose nothing that was confirmed when the power goes.
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={PATIENCE * 1000}", "foreign_keys=ON")


class Driver(Protocol):
    """How one kind of database is spoken to."""

    locking: ClassVar[str]
    #: What it raises.
    error: type[Exception]

    def connect(self) -> Any:
        """A new connection, without a transaction."""
        ...

    def alive(self, connection: Any) -> bool:
        """Whether a connection that lay idle can still be used."""
        ...

    def execute(self, connection: Any, sql: str, values: Mapping[str, Any]) -> Any:
        """The cursor of a statement with values by name, ``:run_id``."""
        ...

    #: What begins a transaction.
    begin: ClassVar[str]


class SqliteDriver:
    """The ledger in a file."""

    locking: ClassVar[str] = ""
    begin: ClassVar[str] = "BEGIN IMMEDIATE"
    error: type[Exception] = sqlite3.Error

    def __init__(self, path: Path) -> None:
        self._path = path

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=PATIENCE, check_same_thread=False)
        prepare_sqlite(connection)
        return connection

    def alive(self, connection: Any) -> bool:
        return True

    def execute(self, connection: Any, sql: str, values: Mapping[str, Any]) -> Any:
        return connection.execute(sql, values)


class PostgresqlDriver:
    """The ledger on a PostgreSQL server, through psycopg."""

    locking: ClassVar[str] = " FOR UPDATE"
    begin: ClassVar[str] = "BEGIN"

    def __init__(self, parameters: Mapping[str, str]) -> None:
        import psycopg

        self._parameters: dict[str, Any] = dict(parameters)
        self._connect = psycopg.connect
        self.error: type[Exception] = psycopg.Error

    def connect(self) -> Any:
        return self._connect(**self._parameters, autocommit=True)

    def alive(self, connection: Any) -> bool:
        # A server that was restarted has closed what lies idle: a message of a run must not be lost to that.
        with suppress(self.error):
            connection.execute("SELECT 1")
            return True
        return False

    def execute(self, connection: Any, sql: str, values: Mapping[str, Any]) -> Any:
        return connection.execute(_as_psycopg(sql), values)


class _Asking:
    """One transaction on one connection: distgate.ledger.runs.Statements."""

    def __init__(self, driver: Driver, connection: Any) -> None:
        self._driver, self._connection = driver, connection
        self.locking = driver.locking

    def rows(self, sql: str, **values: Any) -> Sequence[Sequence[Any]]:
        found: list[tuple[Any, ...]] = self._driver.execute(self._connection, sql, values).fetchall()
        return found

    def changed(self, sql: str, **values: Any) -> int:
        return int(self._driver.execute(self._connection, sql, values).rowcount)


class ConnectedLedger(RunLedger):
    """A run's ledger, for all of its threads: as many connections as are used at the same time."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._idle: list[Any] = []

    @contextmanager
    def statements(self) -> Iterator[_Asking]:
        """See RunLedger."""
        with _reported(self._driver):
            connection = self._take()
            try:
                self._driver.execute(connection, self._driver.begin, {})
                yield _Asking(self._driver, connection)
                self._driver.execute(connection, "COMMIT", {})
            except BaseException:
                self._undo(connection)
                raise
            self._idle.append(connection)

    def schema(self) -> int | None:
        """The number of the ledger's tables; None when there are none, or it cannot be read."""
        try:
            with self.statements() as ask:
                found = ask.rows("SELECT version FROM schema")
        except InfrastructureError:
            return None
        return int(found[0][0]) if found else None

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().close()

    def _undo(self, connection: Any) -> None:
        # It is kept: with the last connection to a ledger on a full disk its log would go, whose room lets some
        # other message through, and a run that has lost one would go on.
        try:
            connection.rollback()  # the same word in both drivers; neither minds that it has happened already
        except self._driver.error:
            connection.close()
        else:
            self._idle.append(connection)

    def _take(self) -> Any:
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if self._driver.alive(connection):
                    return connection
                connection.close()
        return self._driver.connect()


def prepare_sqlite(connection: sqlite3.Connection) -> None:
    """What every connection to an SQLite ledger is told first."""
    # The driver's own transactions are switched off: they begin late, and a read that turns into a write then
    # fails at once when another writer was faster.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


@lru_cache(maxsize=100)
def _as_psycopg(sql: str) -> str:
    return re.sub(r":(\w+)", r"%(\1)s", sql)


@contextmanager
def _reported(driver: Driver) -> Iterator[None]:
    try:
        yield
    except driver.error as error:
        raise unusable(error) from error


def unusable(broken: object) -> InfrastructureError:
    """The ledger's database said no."""
    return InfrastructureError(
        f"the ledger cannot be used: {broken}", hint="is its disk full, or DISTGATE_LEDGER_URL wrong?"
    )
