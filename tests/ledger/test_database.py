"""The ledger's database: several connections to it, and what goes wrong with one."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import RunFacts
from distgate.ledger.tables import OUTBOX, RUNS, SCHEMAS
from distgate.settings import Settings

CHANGE = Change(namespace="rpms", repo="dos2unix", rev="ab" * 20, branch="f41", username="jane")
URL = "http://ui/run"


@pytest.fixture
def own(ledger: Ledger, ledger_url: str) -> Iterator[Ledger]:
    """As a run has it: ``ledger`` has made the tables."""
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


def test_what_a_run_writes_services_read_and_the_other_way_round(own: Ledger, ledger: Ledger) -> None:
    claimed = own.claim(CHANGE, "run-1", URL)
    assert claimed == ledger.run("run-1") == own.run("run-1")
    ledger.record_facts("run-1", RunFacts(nvr="dos2unix-7.5-1.fc41"))
    own.record_facts("run-1", RunFacts(koji_task="7"))
    assert own.runs_of(CHANGE.key) == ledger.runs_of(CHANGE.key)
    assert own.without_heartbeat(-1) == ledger.without_heartbeat(-1) == own.runs_of(CHANGE.key)
    assert (found := own.run("run-1")) is not None
    assert found.facts == RunFacts(nvr="dos2unix-7.5-1.fc41", koji_task="7")
    assert [Announcer(one, Settings()).stage("run-1", "package", "queued") for one in (own, ledger)] == [True, False]
    assert own.messages_of("run-1") == ledger.messages_of("run-1") == own.unsent() == ledger.unsent()
    assert ledger.counts() == {"queued": 1, "runs": 1, "sent": 0, "unsent": 1}


def test_an_empty_ledger_gets_its_tables_from_all_who_open_it_at_once(ledger_url: str) -> None:
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(Ledger(ledger_url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [ledger.counts()["runs"] for ledger in opened] == [0] * 4
    for ledger in opened:
        ledger.close()


def test_a_ledger_that_is_older_than_an_index_gets_it(ledger: Ledger, ledger_url: str) -> None:
    with ledger.transaction() as connection:
        connection.execute(sa.text("DROP INDEX ix_outbox_unsent"))
    Ledger(ledger_url).close()
    with ledger.transaction() as connection:
        assert sa.inspect(connection).has_index("outbox", "ix_outbox_unsent")


def test_a_ledger_of_another_schema_is_refused_with_a_hint(ledger_url: str, ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        connection.execute(SCHEMAS.update().values(version=99))
    with pytest.raises(ConfigurationError, match="has schema 99"):
        Ledger(ledger_url)


def test_what_is_no_url_of_a_ledger_is_refused(tmp_path: Path) -> None:
    for url in ("what?", f"sqlite:///{tmp_path}/ledger.db/below"):
        (tmp_path / "ledger.db").touch()
        with pytest.raises(ConfigurationError, match="the ledger cannot be opened"):
            Ledger(url)


def broken_off(ledger: Ledger) -> None:
    with ledger.transaction() as connection:
        assert connection.execute(RUNS.update().values(status="FAILURE")).rowcount == 1
        connection.execute(sa.text("DELETE FROM no_such_table"))


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(own: Ledger, ledger: Ledger) -> None:
    own.claim(CHANGE, "run-1", URL)
    with pytest.raises(InfrastructureError, match="no_such_table"):
        broken_off(own)
    assert (found := own.run("run-1")) is not None
    assert found.status == "SUCCESS"
    with pytest.raises(LookupError, match="no run nobody"):
        own.record_facts("nobody", RunFacts(nvr="x"))
    with ledger.transaction() as connection:
        OUTBOX.drop(connection)
    with pytest.raises(InfrastructureError, match="the ledger cannot be used"):
        Announcer(own, Settings()).stage("run-1", "package", "queued")
    assert own.heartbeat("run-1", 1)


def test_threads_of_a_run_do_not_wait_for_each_others_connections(own: Ledger) -> None:
    own.claim(CHANGE, "run-1", URL)

    def record_facts(number: int) -> None:
        for turn in range(20):
            own.record_facts("run-1", RunFacts(statuses={f"{number}-{turn}": "x"}))

    threads = [threading.Thread(target=record_facts, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found := own.run("run-1")) is not None
    assert len(found.facts.statuses) == 80


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_as_many_connections_are_open_as_are_used_at_the_same_time(ledger: Ledger) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(ledger.transaction())
        assert ledger.counts()["runs"] == 0


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_closed_costs_no_message(own: Ledger, ledger: Ledger) -> None:
    own.claim(CHANGE, "run-1", URL)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT'"
    with ledger.transaction() as connection:
        assert connection.execute(sa.text(others)).all()
    assert Announcer(own, Settings()).stage("run-1", "package", "queued")
