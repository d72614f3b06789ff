"""Of several processes of one role at a ledger one works, whatever happens to it or to the database."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from distgate.errors import InfrastructureError
from distgate.files import tail_of
from distgate.ledger.leader import FileLeaderLock, LeaderLock, SessionLeaderLock, open_leader_lock
from distgate.ledger.ledger import Ledger
from distgate.process import spawn
from distgate.waiting import wait_for
from lab.servers.postgresql import Postgresql
from services.leadership import wait_for_leadership

OpenLock = Callable[[str], LeaderLock]
#: Acquires the leader lock of a relay, says so, and keeps it.
HOLDER = """
import sys, time
from distgate.ledger.leader import open_leader_lock
lock = open_leader_lock(sys.argv[1], "relay")
print("taken", lock.acquire(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def lock_at(ledger_url: str) -> Iterator[OpenLock]:
    """Opens leader locks at a ledger."""
    Ledger(ledger_url).close()
    opened: list[LeaderLock] = []

    def open_lock(role: str) -> LeaderLock:
        opened.append(open_leader_lock(ledger_url, role))
        return opened[-1]

    yield open_lock
    for one in opened:
        one.close()


def test_one_holds_the_lock_and_the_others_hear_who(lock_at: OpenLock) -> None:
    first, second = lock_at("relay"), lock_at("relay")
    assert [first.acquire(), second.acquire(), first.acquire(), second.acquire()] == [True, False, True, False]
    assert second.holder().startswith("relay on ")
    first.close()
    wait_for("the lock to be free", second.acquire, 30)


def test_each_role_has_a_lock_of_its_own(lock_at: OpenLock) -> None:
    assert lock_at("relay").acquire()
    assert lock_at("reporter").acquire()


def test_a_killed_process_releases_the_lock(lock_at: OpenLock, ledger_url: str, tmp_path: Path) -> None:
    log, mine = tmp_path / "holder.log", lock_at("relay")
    holder = spawn([sys.executable, "-c", HOLDER, ledger_url], log_to=log, cwd=Path(__file__).parents[2])
    try:
        wait_for(
            "the other to hold the lock", lambda: "taken True" in tail_of(log), 60, evidence=lambda: tail_of(log)
        )
        assert not mine.acquire()
        assert f"process {holder.pid}" in mine.holder()
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    wait_for("the lock to be free", mine.acquire, 30)


def test_a_lock_that_the_database_has_freed_is_acquired_anew(database_server: Postgresql) -> None:
    url = database_server.url("distgate")
    first, second = SessionLeaderLock(url, "relay"), SessionLeaderLock(url, "relay")
    assert first.acquire()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'relay on %'")
        )
    engine.dispose()
    with pytest.raises(InfrastructureError, match="the leader lock of the relay cannot be acquired"):
        first.acquire()
    wait_for("the lock to be free", second.acquire, 30)
    assert not first.acquire()
    second.close()
    wait_for("the lock to be free again", first.acquire, 30)
    first.close()


def test_a_ledger_in_memory_has_nobody_else() -> None:
    assert open_leader_lock("sqlite://", "relay").acquire()
    assert open_leader_lock("sqlite://", "relay").acquire()


def test_a_lock_that_cannot_be_tried_is_not_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="cannot be had"):
        FileLeaderLock(tmp_path / "file/ledger.db.relay", "relay").acquire()


def test_whoever_waits_says_once_for_whom_and_begins_when_it_is_free(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first, second = (FileLeaderLock(tmp_path / "ledger.db.relay", "relay") for _ in range(2))
    assert first.acquire()
    threading.Timer(3, first.close).start()
    assert wait_for_leadership(second, threading.Event())
    waited, began = (record.getMessage() for record in caplog.records if record.name == "services.leadership")
    assert "another relay works for this ledger (relay on " in waited
    assert began == "this relay is the leader from now on"


def test_whoever_is_asked_to_end_waits_no_longer(tmp_path: Path) -> None:
    first, second = (FileLeaderLock(tmp_path / "ledger.db.relay", "relay") for _ in range(2))
    assert first.acquire()
    asked = threading.Event()
    threading.Timer(0.2, asked.set).start()
    assert not wait_for_leadership(second, asked)
