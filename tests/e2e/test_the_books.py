"""After everything that the other tests of this directory did to the lab, its books balance."""

import pytest

from distgate.ledger.ledger import Ledger
from distgate.operations.audit import Audit, audit
from distgate.operations.ledger_queries import ledger_snapshot
from distgate.waiting import wait_for
from lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.guest]


def test_the_books_of_the_lab_balance_and_every_message_was_confirmed(lab: World) -> None:
    ledger = Ledger(lab.ledger_url)

    def settled() -> Audit | None:
        found = audit(ledger_snapshot(ledger), 0.0)
        quiet = not found.runs["running"] and not found.triggers["waiting"] and not found.messages["queued"]
        return found if quiet else None

    found = wait_for("runs and messages to come to rest", settled, 120)
    assert found.problems == ()
    assert found.runs["total"] == sum(found.runs[status] for status in ("SUCCESS", "UNSTABLE", "FAILURE", "ABORTED"))
