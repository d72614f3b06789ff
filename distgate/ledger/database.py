"""The ledger's database: SQLAlchemy on a URL, SQLite in WAL mode on one host, PostgreSQL beyond."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from distgate.errors import ConfigurationError
from distgate.ledger.tables import META, OUTBOX_UNSENT, SCHEMA, SCHEMAS

#: Seconds for which a writer of SQLite waits for others.
PATIENCE = 60
#: Other processes write too: wait for them, and lose nothing that was confirmed when the power goes.
_PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={PATIENCE * 1000}", "foreign_keys=ON")
#: PostgreSQL's lock for making the tables; any number that is always the same.
_MAKING = 0x64697374


def open_engine(url: str) -> Engine:
    """A connection pool on the ledger at ``url``, whose tables exist; they are made in an empty database.

    Raises ConfigurationError for a ledger of another schema and for a URL that names no ledger.
    """
    try:
        file = file_of(url)
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, **_pool_options(url, file))
    except (sa.exc.ArgumentError, ImportError, OSError) as error:
        raise _no_ledger(str(error)) from error
    except ValueError as error:  # a port that is no number: it may be a part of the password
        raise _no_ledger("the URL has no port that is a number; are special characters percent-encoded?") from error
    if url.startswith("sqlite"):
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    with engine.begin() as connection:
        _make_tables(connection)
        _refuse_other_schema(connection, url)
    return engine


def insert_new(connection: Connection, table: sa.Table, row: dict[str, Any]) -> bool:
    """Insert ``row`` unless one of its unique keys is taken; whether it was inserted."""
    # SQLite's and PostgreSQL's ON CONFLICT are written alike, each in its own dialect: the other one costs 0.08 s.
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    insert = dialect.insert(table).values(**row).on_conflict_do_nothing().returning(*table.primary_key)
    return connection.execute(insert).first() is not None


def starts_with(column: sa.Column[str], prefix: str) -> sa.ColumnElement[bool]:
    """The condition that a text begins with ``prefix``, case-sensitively."""
    # Not LIKE: SQLite's does not tell R from r, and names of packages do.
    return sa.func.substr(column, 1, len(prefix)) == prefix


def file_of(url: str) -> Path | None:
    """The file of an SQLite ledger; None for any other. Raises ConfigurationError when ``url`` is no URL."""
    try:
        path = sa.make_url(url).database if url.startswith("sqlite") else None
    except sa.exc.ArgumentError as error:
        raise _no_ledger(str(error)) from error
    return Path(path) if path and path != ":memory:" else None


def _pool_options(url: str, file: Path | None) -> dict[str, Any]:
    # Size 0 is no limit: threads never wait for each other's connections, and none is closed when it is given back.
    # With the last one to a ledger on a full disk its log would go, whose space lets some other message through, and
    # a run that has lost one would go on.
    if file is not None:
        return {"connect_args": {"timeout": PATIENCE}, "poolclass": sa.QueuePool, "pool_size": 0}
    # A server that was restarted has closed what lies in the pool: a message of a run must not be lost to that.
    return {} if url.startswith("sqlite") else {"pool_pre_ping": True, "pool_size": 0}


def _make_tables(connection: Connection) -> None:
    inspector = sa.inspect(connection)
    existing = set(inspector.get_table_names())
    if META.tables.keys() <= existing and inspector.has_index("outbox", "ix_outbox_unsent"):
        return
    if connection.dialect.name == "postgresql":
        # Services start together, and two that make the same table at once fail; SQLite's writers wait anyway.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
    META.create_all(connection)
    connection.exec_driver_sql(OUTBOX_UNSENT)  # a ledger that is older than the index gets it now
    if META.tables.keys().isdisjoint(existing):
        insert_new(connection, SCHEMAS, {"version": SCHEMA})


def _refuse_other_schema(connection: Connection, url: str) -> None:
    version = connection.execute(sa.select(SCHEMAS.c.version)).scalar_one_or_none()
    if version != SCHEMA:
        safe_url = sa.make_url(url).render_as_string(hide_password=True)
        schema = version or "from before schemas were numbered"
        raise ConfigurationError(
            f"the ledger {safe_url} has schema {schema}, this distgate needs {SCHEMA}",
            hint="let its runs end with the distgate that wrote it, then begin a new ledger",
        )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions are switched off: they begin late, and a read that turns into a write then
    # fails at once when another writer was faster.
    connection.isolation_level = None
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _no_ledger(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"the ledger cannot be opened: {reason}",
        hint="DISTGATE_LEDGER_URL is an SQLAlchemy URL; PostgreSQL needs a driver such as psycopg",
    )
