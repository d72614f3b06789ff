"""The ledger for tasks that look beyond one run."""

from __future__ import annotations

from functools import lru_cache

from distgate.ledger.ledger import Ledger
from distgate.settings import settings


@lru_cache(maxsize=1)
def open_ledger() -> Ledger:
    """All of the ledger of this process; a run uses tasks.run.stage.ledger, which costs less to open."""
    return Ledger(settings().ledger_url)
