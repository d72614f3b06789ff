"""One broker, one Prefect server, one PostgreSQL and one lab for all tests, each started when a test asks for it."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, text

from distgate.ledger.ledger import Ledger
from distgate.waiting import Deadline
from lab import teardown
from lab.servers import postgresql, rabbitmq, supervisor
from lab.servers import prefect_server as prefect
from lab.servers.postgresql import Postgresql
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import Broker
from lab.servers.service import Service, save_service

if TYPE_CHECKING:
    from distgate.images.base import BaseImage
    from lab.world import World

START_SECONDS = 180.0

#: Servers that are dear to start: the tests that share one run in one process of pytest-xdist, one after another.
#: The first that fits counts. Those that need no more than a broker or a Prefect server share these, beside the lab.
SHARED = {"world": {"lab"}, "gate": {"gate"}, "server": {"broker", "prefect_server", "lab_state"}}
#: Has a lab to itself, in another process: its few runs take as long as all others of the lab together.
ALONE = "tests/e2e/test_atomic_host.py"


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one file stay together, too: they share what their module set up.

    Groups begin in the order in which their first tests stand here: those above, files with guests, then large files,
    so that no process is left alone with a long one at the end.
    """
    groups = {item.nodeid: _group_of(item) for item in items}
    size = Counter(groups.values())
    guests = {groups[item.nodeid] for item in items if item.get_closest_marker("guest")}
    order = [
        ALONE,
        *SHARED,
        *sorted(set(groups.values()) - {ALONE, *SHARED}, key=lambda name: (name not in guests, -size[name], name)),
    ]
    rank = {name: number for number, name in enumerate(order)}
    items.sort(key=lambda item: rank[groups[item.nodeid]])
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item.nodeid]))


def _group_of(item: pytest.Item) -> str:
    file, wanted = item.nodeid.split("::")[0], set(getattr(item, "fixturenames", ()))
    return file if file == ALONE else next((name for name, servers in SHARED.items() if servers & wanted), file)


@pytest.fixture(scope="session")
def cache() -> Path:
    """Where the lab keeps what is costly to make, across test runs."""
    return Path(os.environ.get("DISTGATE_CACHE_DIR", "~/.cache/distgate/lab")).expanduser()


@pytest.fixture(scope="session")
def lab_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of the tests' lab; whatever was started in it is ended."""
    state = tmp_path_factory.mktemp("lab").resolve()
    yield state
    teardown.down(state, print)


@pytest.fixture(scope="session")
def broker(lab_state: Path) -> Broker:
    """A running RabbitMQ."""
    running = rabbitmq.prepare(lab_state / "rabbitmq")
    _start(lab_state, running.services())
    return running


@pytest.fixture(scope="session")
def prefect_server(lab_state: Path) -> PrefectServer:
    """A running Prefect server without work pool, worker and deployments."""
    server = prefect.prepare(lab_state / "prefect")
    _start(lab_state, [server.server()])
    return server


@pytest.fixture(scope="session")
def base_image(cache: Path) -> BaseImage:
    """A bootable image, composed from the lab's own repository; the first run on a machine takes two minutes."""
    from lab.images.base_image import ensure_base

    return ensure_base(cache, print)


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgresql]:
    """A running PostgreSQL."""
    state = tmp_path_factory.mktemp("database").resolve()
    running = postgresql.prepare(state)
    try:
        _start(state, [running.service()])
        yield running
        _end_sessions(running)
    finally:
        teardown.down(state, print)


def _end_sessions(server: Postgresql) -> None:
    """Take the sessions that tests left open from their pools: the server would wait for them before it ends."""
    engine = create_engine(server.url(postgresql.LEDGER))
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        )
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger: a file, and a schema of its own in PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    made: str = request.getfixturevalue("empty_schema")()
    return made


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger."""
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def empty_schema(database_server: Postgresql) -> Callable[[], str]:
    """Makes a schema of PostgreSQL and gives its URL; a database of its own would cost a test a second."""

    def made() -> str:
        name, url = f"t{uuid.uuid4().hex[:12]}", database_server.url(postgresql.LEDGER)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        engine.dispose()
        return f"{url}?options=-csearch_path%3D{name}"

    return made


@pytest.fixture(scope="session")
def lab(lab_state: Path, cache: Path) -> World:
    """The whole lab, with the broker and the Prefect server that other tests use."""
    from lab import world  # with all of the lab behind it: most tests do without

    return world.assemble(lab_state, cache, print)


def _start(state: Path, wanted: list[Service]) -> None:
    for one in wanted:
        save_service(state, one)
    supervisor.start_supervisor(state)
    supervisor.wait_healthy(state, [one.name for one in wanted], Deadline(START_SECONDS))
