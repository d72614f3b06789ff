"""The ledger as runs open it: without SQLAlchemy, and the same books as everybody's."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.ledger.connections import ConnectedLedger
from distgate.ledger.ledger import Ledger
from distgate.ledger.open import driver_of, run_ledger
from distgate.ledger.runs import RunLedger
from distgate.ledger.tables import OUTBOX, SCHEMAS
from distgate.process import run
from distgate.settings import Settings

CHANGE = Change(namespace="rpms", repo="dos2unix", rev="ab" * 20, branch="f41", username="jane")
URL = "http://ui/run"


@pytest.fixture
def own(ledger: Ledger, ledger_url: str) -> Iterator[RunLedger]:
    opened = run_ledger(ledger_url)
    yield opened
    opened.close()


def test_what_a_run_writes_services_read_and_the_other_way_round(own: RunLedger, ledger: Ledger) -> None:
    claimed = own.claim(CHANGE, "run-1", URL)
    assert claimed == ledger.run("run-1") == own.run("run-1")
    ledger.record_facts("run-1", nvr="dos2unix-7.5-1.fc41")
    own.record_facts("run-1", koji_task="7")
    assert own.runs_of(CHANGE.key) == ledger.runs_of(CHANGE.key) == ledger.silent(-1) == own.silent(-1)
    assert (found := own.run("run-1")) is not None
    assert found.facts == {"nvr": "dos2unix-7.5-1.fc41", "koji_task": "7"}
    assert [Announcer(one, Settings()).stage("run-1", "package", "queued") for one in (own, ledger)] == [True, False]
    assert own.messages_of("run-1") == ledger.messages_of("run-1") == own.unsent() == ledger.unsent()
    assert ledger.counts() == {"queued": 1, "runs": 1, "sent": 0, "unsent": 1}


def opens(ledger: RunLedger) -> type:
    ledger.close()
    return type(ledger)


def test_a_run_opens_the_ledger_without_sqlalchemy(own: RunLedger, ledger_url: str) -> None:
    look = (
        "import sys; from distgate.ledger.open import run_ledger as at; print(at(sys.argv[1]).run('nobody'));"
        "print(*sorted(sys.modules))"
    )
    said = run([sys.executable, "-c", look, ledger_url], timeout=120).output.splitlines()
    assert said[0] == "None"
    assert "sqlalchemy" not in said[1].split()


def test_an_empty_ledger_gets_its_tables_from_the_first_run(ledger_url: str) -> None:
    assert opens(run_ledger(ledger_url)) is ConnectedLedger
    assert opens(run_ledger(ledger_url)) is ConnectedLedger


def test_a_run_refuses_a_ledger_of_another_schema(ledger: Ledger, ledger_url: str) -> None:
    with ledger.transaction() as connection:
        connection.execute(SCHEMAS.update().values(version=99))
    with pytest.raises(ConfigurationError, match="has schema 99"):
        run_ledger(ledger_url)


#: Whether a run can open the ledger at a URL itself; the others it opens as services do.
URLS = [
    ("sqlite:///ledger.db", True),
    ("sqlite:////var/lib/distgate/ledger.db", True),
    ("sqlite+pysqlite:////var/lib/distgate/ledger.db", True),
    ("sqlite:///:memory:", False),
    ("sqlite://", False),
    ("sqlite:///file:ledger.db?mode=rwc&uri=true", False),
    ("postgresql+psycopg://distgate:p%40ss@db.example.org:5432/distgate?sslmode=require", True),
    ("postgresql+psycopg:///distgate?host=/run/postgresql", True),
    ("postgresql+psycopg://distgate@one,two/distgate", False),
    ("postgresql+psycopg:///distgate?host=one:1&host=two:2", False),
    ("postgresql://db.example.org/distgate", False),
    ("mysql://db.example.org/distgate", False),
]


@pytest.mark.parametrize(("url", "own"), URLS)
def test_what_a_url_can_say_in_one_way_only_needs_no_sqlalchemy(url: str, own: bool) -> None:
    assert (driver_of(url) is not None) is own


def test_what_is_no_url_is_refused_in_the_words_of_the_whole_ledger(tmp_path: Path) -> None:
    for url in ("what?", f"sqlite:///{tmp_path}/ledger.db/below"):
        (tmp_path / "ledger.db").touch()
        with pytest.raises(ConfigurationError, match="the ledger cannot be opened"):
            run_ledger(url)


def broken_off(ledger: RunLedger) -> None:
    with ledger.statements() as ask:
        assert ask.changed("UPDATE runs SET status = 'FAILURE' WHERE run_id = :run", run="run-1") == 1
        ask.changed("DELETE FROM no_such_table")


def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_works(own: RunLedger, ledger: Ledger) -> None:
    own.claim(CHANGE, "run-1", URL)
    with pytest.raises(InfrastructureError, match="no_such_table"):
        broken_off(own)
    assert (found := own.run("run-1")) is not None
    assert found.status == "SUCCESS"
    with pytest.raises(LookupError, match="no run nobody"):
        own.record_facts("nobody", nvr="x")
    with ledger.transaction() as connection:
        OUTBOX.drop(connection)
    with pytest.raises(InfrastructureError, match="the ledger cannot be used"):
        Announcer(own, Settings()).stage("run-1", "package", "queued")
    assert own.beat("run-1", 1)


def test_threads_of_a_run_do_not_wait_for_each_others_connections(own: RunLedger) -> None:
    own.claim(CHANGE, "run-1", URL)

    def record_facts(number: int) -> Callable[[], None]:
        return lambda: [own.record_facts("run-1", **{f"{number}-{turn}": "x"}) for turn in range(20)] and None

    threads = [threading.Thread(target=record_facts(number)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found := own.run("run-1")) is not None
    assert len(found.facts) == 80


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
def test_a_connection_that_the_server_closed_costs_no_message(own: RunLedger, ledger: Ledger) -> None:
    own.claim(CHANGE, "run-1", URL)
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT'"
    with ledger.transaction() as connection:
        assert connection.execute(sa.text(others)).all()
    assert Announcer(own, Settings()).stage("run-1", "package", "queued")
