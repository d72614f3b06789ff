"""What a run left behind goes, and its results, when it cannot be retried any more."""

from __future__ import annotations

import time
import uuid

import pytest

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.ledger.ledger import Ledger
from distgate.ledger.run_ends import holder_has_ended
from distgate.ledger.runs import RunFacts
from distgate.ledger.tables import RUNS
from distgate.operations.clean_up import DAY, expired_copies
from distgate.operations.stored_results import StoredResult, expired_results
from distgate.settings import Settings

NOW = time.time()
KEEP = 30 * DAY
STAGES = ("Build package", "Compose image-/var/lib/distgate/images".replace("/", "_"))


def run_of(ledger: Ledger, days_ago: float | None, takes: str = "") -> str:
    """A run that ended so many days ago, None for one that goes on; it took the results of ``takes``."""
    run_id = str(uuid.uuid4())
    change = Change(namespace="rpms", repo="bash", rev=(run_id.replace("-", "") * 2)[:40], branch="f41", username="j")
    ledger.claim(change, run_id, "http://x")
    if takes:
        ledger.record_facts(run_id, RunFacts(results={"package": takes}))
    if days_ago is not None:
        Announcer(ledger, Settings()).close(run_id, "FAILURE")
        with ledger.transaction() as connection:
            mine = RUNS.update().where(RUNS.c.run_id == run_id)
            connection.execute(mine.values(ended_at=NOW - days_ago * DAY))
    return run_id


def results(*run_ids: str, days_ago: float | None = 50) -> list[StoredResult]:
    written = None if days_ago is None else NOW - days_ago * DAY
    return [StoredResult(f"{run_id}-{stage}", 1000, written) for run_id in run_ids for stage in STAGES]


def test_results_go_with_the_end_of_their_run_and_never_before(ledger: Ledger) -> None:
    old, young, open_run = run_of(ledger, 40), run_of(ledger, 3), run_of(ledger, None)
    (gone,) = expired_results(ledger, results(old, young, open_run), NOW, KEEP)
    assert gone.names == tuple(one.name for one in results(old))
    row = gone.freed.row()
    assert (row["what"], row["why"], gone.freed.size) == (old, "its run ended 40 days ago", 2000)


@pytest.mark.parametrize(("days_ago", "stays"), [(None, True), (3.0, True), (35.0, False)])
def test_what_a_later_run_has_taken_over_stays_until_that_is_old(
    ledger: Ledger, days_ago: float | None, stays: bool
) -> None:
    first = run_of(ledger, 50)
    second = run_of(ledger, 45, takes=first)
    third = run_of(ledger, days_ago, takes=first)
    gone = {one.freed.what for one in expired_results(ledger, results(first, second, third), NOW, KEEP)}
    assert (first not in gone, second in gone) == (stays, True)
    assert (first in {one.what for one in expired_copies(ledger, [first, second], NOW, KEEP)}) is not stays


def test_results_of_no_run_that_is_known_go_by_their_age(ledger: Ledger) -> None:
    stranger, nobody = str(uuid.uuid4()), uuid.uuid4().hex
    old = [*results(stranger), StoredResult(nobody, 1, NOW - 50 * DAY)]
    young = [*results(str(uuid.uuid4()), days_ago=3), StoredResult(uuid.uuid4().hex, 1, NOW)]
    ageless = [*results(str(uuid.uuid4()), days_ago=None)]
    gone = {name for one in expired_results(ledger, old + young + ageless, NOW, KEEP) for name in one.names}
    assert gone == {one.name for one in old}


def test_what_is_called_otherwise_is_nobodys_business(ledger: Ledger) -> None:
    others = [StoredResult(name, 1, 0.0) for name in ("my-results", "f" * 31, ".keep", "report-2024.pickle")]
    assert expired_results(ledger, others, NOW, KEEP) == []


def test_a_holder_has_ended_when_its_run_has_or_is_forgotten(ledger: Ledger) -> None:
    ended, going = run_of(ledger, 1), run_of(ledger, None)
    holders = {
        f"run {ended}, bash f41 abc": True,
        f"run {going}, bash f41 abc": False,
        f"run {uuid.uuid4()}, x": True,
    }
    assert {one: holder_has_ended(ledger, one) for one in holders} == holders
    assert [holder_has_ended(ledger, by_hand) for by_hand in ("", "jane", "run away")] == [False] * 3
