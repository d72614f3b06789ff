"""Several writers at one ledger, and texts of strangers in it: no database takes them worse than another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import sqlalchemy as sa

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.changes.triage import Decision
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import note_dead, reject, rejections
from distgate.ledger.runs import RunFacts
from distgate.ledger.tables import CHANGES, OUTBOX, RUNS
from distgate.operations.figures import figures
from distgate.operations.prune_ledger import Forgotten, forget
from distgate.reports.outbox import ReportOutbox, channel_states
from distgate.settings import Settings
from distgate.waiting import wait_for

T = TypeVar("T")
CHANGE = Change(namespace="rpms", repo="dos2unix", rev="ab" * 20, branch="f41", username="jane")
#: A NUL, half a character and what a terminal obeys.
WILD = "lost\x00 at \ud800 once\x1b[2J"
SENTENCE = "dos2unix f41: lost at  once"


@pytest.fixture
def announcer(ledger: Ledger) -> Announcer:
    """Speaks for the run "run-1", which has ended with a message that was sent."""
    made = Announcer(ledger, Settings())
    ledger.claim(CHANGE, "run-1", "http://ui/run")
    made.close("run-1", "FAILURE")
    for message in ledger.unsent():
        ledger.sent(message.seq)
    return made


def test_texts_of_strangers_are_kept_as_people_can_read_them(ledger: Ledger) -> None:
    channel = ReportOutbox(ledger, "mail")
    announcer = Announcer(ledger, Settings())
    ledger.claim(CHANGE, "run-1", "http://ui/run")
    ledger.record_facts("run-1", RunFacts(blame="bug", sentence=f"dos2unix f41: {WILD}"))
    announcer.close("run-1", "FAILURE")
    (message,) = ledger.unsent()
    ledger.unsendable(message.seq, WILD)
    assert ledger.unsent()[0].error == "lost at  once"
    (due,) = channel.due()
    channel.trying(due)
    channel.failed(due, WILD)
    channel.refused(due, WILD)
    (state,) = channel_states(ledger)
    assert (state.error, state.refused[0].error) == ("lost at  once", "lost at  once")
    found = figures(ledger)
    assert dict(found.ended) == {("allpackages", "FAILURE", "bug"): 1}
    assert dict(found.same_errors) == {("bug", "lost at  once"): 1}
    run = ledger.run("run-1")
    assert run is not None
    assert run.facts.sentence == SENTENCE


def test_a_message_that_two_refuse_at_once_is_written_down_by_both(ledger: Ledger) -> None:
    turns = threading.Barrier(6)

    def write(note: Callable[[str], object]) -> None:
        for number in range(20):
            turns.wait()
            note(f"m-{number}")

    notes: list[Callable[[str], object]] = [
        lambda name: reject(ledger, name, "org.example", "no commit"),
        lambda name: note_dead(ledger, name, "org.example", "no commit"),
    ]
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(write, note) for note in notes * 3]:
            done.result(60)
    seen = [one.seen for one in rejections(ledger)]
    assert len(seen) == 20
    assert all(3 <= count <= 4 for count in seen)


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
class TestWhileRowsAreForgotten:
    """SQLite's writers take turns; PostgreSQL's meet."""

    def blocked(self, ledger: Ledger) -> bool:
        """Whether a session waits for another one's rows."""
        wait = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        with ledger.transaction() as connection:
            return bool(connection.execute(sa.text(wait)).scalar())

    def test_a_run_that_is_retried_just_then_stays(self, ledger: Ledger, announcer: Announcer) -> None:
        with ThreadPoolExecutor(1) as pool:
            with ledger.transaction() as connection:  # as a claim writes
                connection.execute(CHANGES.update().values(run_id="run-1"))
                connection.execute(RUNS.update().values(ended_at=None, attempt=2))
                gone = pool.submit(forget, ledger, time.time() + 60, None)
                wait_for("the clean-up to wait", lambda: self.blocked(ledger), 30)
            assert gone.result(30) == Forgotten()
        run = ledger.run("run-1")
        assert run is not None
        assert run.attempt == 2

    def forgotten_while(self, ledger: Ledger, write: Callable[[], T]) -> T:
        """What ``write`` returns when everything is forgotten as soon as it waits for that."""
        with ThreadPoolExecutor(1) as pool:
            with ledger.transaction() as connection:  # as forgetting does
                connection.execute(sa.select(CHANGES).with_for_update())
                written = pool.submit(write)
                wait_for("the other to wait", lambda: self.blocked(ledger), 30)
                for table in (OUTBOX, RUNS, CHANGES):
                    connection.execute(table.delete())
            return written.result(30)

    def test_a_push_that_comes_again_just_then_is_a_new_one(self, ledger: Ledger, announcer: Announcer) -> None:
        decision = Decision("queued", "is tested", "accepted", change=CHANGE)
        assert self.forgotten_while(ledger, lambda: ledger.record(CHANGE, decision)).new

    def test_a_change_that_is_forgotten_just_then_is_claimed_as_a_new_one(
        self, ledger: Ledger, announcer: Announcer
    ) -> None:
        run = self.forgotten_while(ledger, lambda: ledger.claim(CHANGE, "run-1", "http://ui/run"))
        assert run is not None
        assert (run.run_id, run.attempt, run.ended) == ("run-1", 1, False)
