"""The tables of the ledger and how a database of them is opened; what they mean is in distgate.ledger.ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from distgate.errors import ConfigurationError
from distgate.ledger.connections import PATIENCE, SCHEMA, prepare_sqlite

META = sa.MetaData()

#: What was decided about a change, once for each pipeline that was asked: neither answers for the other.
CHANGES = sa.Table(
    "changes",
    META,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("pipeline", sa.Text, primary_key=True),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False, default=1),
    sa.Column("head", sa.Boolean, nullable=False, default=False),
    sa.Column("accepted_at", sa.Float, nullable=False, index=True),
    sa.Column("offered_at", sa.Float),
    sa.Column("run_id", sa.Text),
    # What waits, and what Prefect was not told of, is looked for twice a second.
    sa.Index("ix_changes_rule_offered", "rule", "pipeline", "offered_at"),
)
RUNS = sa.Table(
    "runs",
    META,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("pipeline", sa.Text, nullable=False),
    sa.Column("build_url", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("open_stage", sa.Text),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("claimed_at", sa.Float, nullable=False),
    sa.Column("beat_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
    sa.ForeignKeyConstraint(["key", "pipeline"], ["changes.key", "changes.pipeline"]),
    sa.Index("ix_runs_key_pipeline", "key", "pipeline"),
)
OUTBOX = sa.Table(
    "outbox",
    META,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("message_id", sa.Text, nullable=False, unique=True),
    sa.Column("run_id", sa.Text, nullable=False, index=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("sent_at", sa.Float),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("error", sa.Text),
    sa.UniqueConstraint("run_id", "topic", "attempt"),
)
#: The relay looks for these several times a second, among millions that were sent. In SQL, for every database's own
#: kind of index would have each run import all of them.
OUTBOX_UNSENT = "CREATE INDEX IF NOT EXISTS ix_outbox_unsent ON outbox (seq) WHERE sent_at IS NULL"

#: Messages that are no push that could be read, by their ID on the bus; they lie in the dead-letter queue.
REJECTIONS = sa.Table(
    "rejections",
    META,
    sa.Column("message_id", sa.Text, primary_key=True),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False, default=1),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Column("requeued_at", sa.Float),
)

SCHEMAS = sa.Table("schema", META, sa.Column("version", sa.Integer, primary_key=True))
#: PostgreSQL's lock for whoever makes the tables; any number that is always the same.
_MAKING = 0x64697374


def open_engine(url: str) -> Engine:
    """A connection pool on the ledger at ``url``, whose tables exist; they are made in an empty database.

    Raises ConfigurationError for a ledger of another schema.
    """
    sqlite = url.startswith("sqlite")
    try:
        _make_parent(url)
        # A server that was restarted has closed what lies in the pool: a message of a run must not be lost to that.
        engine = sa.create_engine(url, connect_args={"timeout": PATIENCE} if sqlite else {}, pool_pre_ping=not sqlite)
    except (sa.exc.ArgumentError, ImportError, OSError) as error:
        raise _no_ledger(str(error)) from error
    except ValueError as error:  # a port that is no number: it may be a part of the password
        raise _no_ledger("the URL has no port that is a number; are special characters percent-encoded?") from error
    if sqlite:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    with engine.begin() as connection:
        _make_tables(connection, url)
    return engine


def _make_tables(connection: Connection, url: str) -> None:
    if connection.dialect.name == "postgresql":
        # Services start together, and two that make the same table at once fail; SQLite's writers take turns anyway.
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
    known = set(sa.inspect(connection).get_table_names())
    fresh = META.tables.keys().isdisjoint(known)
    if not META.tables.keys() <= known:
        META.create_all(connection)
    connection.exec_driver_sql(OUTBOX_UNSENT)  # a ledger that is older than the index gets it now
    if fresh:
        connection.execute(SCHEMAS.insert().values(version=SCHEMA))
    found = connection.execute(sa.select(SCHEMAS.c.version)).scalar_one_or_none()
    if found != SCHEMA:
        shown = sa.make_url(url).render_as_string(hide_password=True)
        raise ConfigurationError(
            f"the ledger {shown} has schema {found or 'of a time before numbers'}, this distgate needs {SCHEMA}",
            hint="let its runs end with the distgate that wrote it, then begin a new ledger",
        )


def insert_new(connection: Connection, table: sa.Table, row: dict[str, Any]) -> bool:
    """Insert ``row`` unless one of its unique keys is taken; whether it was inserted.

    A savepoint keeps PostgreSQL's transaction alive.
    """
    try:
        with connection.begin_nested():
            connection.execute(table.insert().values(**row))
    except sa.exc.IntegrityError:
        return False
    return True


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    prepare_sqlite(connection)


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def file_of(url: str) -> Path | None:
    """The file of an SQLite ledger; None for any other. Raises ConfigurationError when ``url`` is none."""
    try:
        path = sa.make_url(url).database if url.startswith("sqlite") else None
    except sa.exc.ArgumentError as error:
        raise _no_ledger(str(error)) from error
    return Path(path) if path and path != ":memory:" else None


def _no_ledger(said: str) -> ConfigurationError:
    return ConfigurationError(
        f"the ledger cannot be opened: {said}",
        hint="DISTGATE_LEDGER_URL is an SQLAlchemy URL; PostgreSQL needs a driver such as psycopg",
    )


def _make_parent(url: str) -> None:
    file = file_of(url)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
