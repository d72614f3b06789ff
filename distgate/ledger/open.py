"""Opens the ledger of a run."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from distgate.ledger.connections import SCHEMA, ConnectedLedger, Driver, PostgresqlDriver, SqliteDriver
from distgate.ledger.runs import RunLedger


def run_ledger(url: str) -> RunLedger:
    """The ledger at ``url`` for a run; its tables are made when there are none.

    Raises ConfigurationError for a ledger of another schema or a URL that is none, InfrastructureError when it cannot
    be opened.
    """
    driver = driver_of(url)
    if driver is not None:
        lean = ConnectedLedger(driver)
        if lean.schema() == SCHEMA:
            return lean
        lean.close()
    from distgate.ledger.ledger import Ledger

    whole = Ledger(url)
    if driver is None:
        return whole
    whole.close()
    return ConnectedLedger(driver)


def driver_of(url: str) -> Driver | None:
    """The driver for a ledger's URL; None for one that is left to SQLAlchemy."""
    if file := _SQLITE.fullmatch(url):
        return SqliteDriver(Path(file["path"]))
    if (server := _POSTGRESQL.fullmatch(url)) is None:
        return None
    words = parse_qsl(server["query"] or "")
    if len(dict(words)) != len(words):  # several hosts
        return None
    names = ("user", "password", "host", "port", "dbname")
    known = {name: unquote(server[name]) for name in names if server[name]}
    try:
        return PostgresqlDriver(known | dict(words))
    except ImportError:
        return None


_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///(?P<path>[^?:]+)")
#: What can be read in one way only; passwords with special characters are percent-encoded.
_POSTGRESQL = re.compile(
    r"postgresql\+psycopg://(?:(?P<user>[^:/?#@]*)(?::(?P<password>[^:/?#@]*))?@)?"
    r"(?P<host>[\w.-]+)?(?::(?P<port>\d+))?/(?P<dbname>[^/?#]+)(?:\?(?P<query>[^#]*))?"
)
