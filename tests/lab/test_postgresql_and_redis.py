"""PostgreSQL and Redis as servers of the lab's own: loopback only, for root as well, and what a kill does to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as Client
from sqlalchemy import create_engine, text

from distgate.waiting import Deadline, wait_for
from lab import teardown
from lab.servers import postgresql, redis, supervisor
from lab.servers.postgresql import Postgresql
from lab.servers.redis import Redis
from lab.servers.service import last_start, save_service

SOON = 60.0


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("stores")
    os.chmod(directory, 0o700)  # as a lab's state: nobody but its owner passes through
    yield directory
    teardown.down(directory, print)


@pytest.fixture(scope="module")
def stores(state: Path) -> tuple[Postgresql, Redis]:
    made = postgresql.prepare(state / "postgresql"), redis.prepare(state / "redis")
    for one in made:
        save_service(state, one.service())
    supervisor.start_supervisor(state)
    supervisor.wait_healthy(state, [postgresql.NAME, redis.NAME], Deadline(SOON))
    return made


def test_postgresql_has_a_database_for_the_ledger_and_one_for_prefect(stores: tuple[Postgresql, Redis]) -> None:
    for name in (postgresql.LEDGER, postgresql.PREFECT):
        with create_engine(stores[0].url(name)).connect() as connection:
            assert connection.execute(text("SELECT current_database()")).scalar() == name


def test_both_want_a_password(stores: tuple[Postgresql, Redis], state: Path) -> None:
    from redis import AuthenticationError
    from sqlalchemy.exc import OperationalError

    with pytest.raises(OperationalError, match="password"):
        create_engine(stores[0].url(postgresql.LEDGER).replace(stores[0].password, "guess")).connect()
    with pytest.raises(AuthenticationError):
        Client.from_url(stores[1].url().replace(stores[1].password, "guess")).ping()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (state / "redis" / "redis.conf",))


def test_what_was_written_outlives_a_kill_of_either(stores: tuple[Postgresql, Redis], state: Path) -> None:
    with create_engine(stores[0].url(postgresql.LEDGER)).begin() as connection:
        connection.execute(text("CREATE TABLE kept AS SELECT 7 AS number"))
    Client.from_url(stores[1].url()).set("kept", "7")
    for name in (postgresql.NAME, redis.NAME):
        first = last_start(state, name)
        assert supervisor.kill(state, name, signal.SIGKILL)
        wait_for(f"{name} to be started again", lambda n=name, f=first: last_start(state, n) != f, SOON)
    supervisor.wait_healthy(state, [postgresql.NAME, redis.NAME], Deadline(SOON))
    with create_engine(stores[0].url(postgresql.LEDGER)).connect() as connection:
        assert connection.execute(text("SELECT number FROM kept")).scalar() == 7
    assert Client.from_url(stores[1].url()).get("kept") == b"7"


def test_each_is_the_same_when_it_is_prepared_again(stores: tuple[Postgresql, Redis], state: Path) -> None:
    assert (postgresql.prepare(state / "postgresql"), redis.prepare(state / "redis")) == stores
