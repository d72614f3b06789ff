"""The whole lab as one: it comes up, says where everything is, heals, and refuses what would break it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.bus import amqp
from distgate.errors import ConfigurationError
from distgate.prefect_api import PrefectApi
from distgate.process import spawn
from distgate.waiting import Deadline, wait_for
from lab import teardown, world
from lab.servers import supervisor
from lab.servers.service import Service, last_start, save_service
from lab.start_lock import starting
from lab.world import World

SOON = 90.0
# The command line; a test runner in the background of a script hands down that SIGINT is ignored.
INTERRUPTIBLE = """
import signal
from distgate.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
EXPECTED = {
    "dist-git",
    "intake",
    "koji-hub",
    "metrics",
    "prefect-server",
    "prefect-worker",
    "rabbitmq",
    "rabbitmq-epmd",
    "relay",
    "reconciler",
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A lab of one small service."""
    save_service(tmp_path, Service("sleeper", ("sleep", "600")))
    supervisor.start_supervisor(tmp_path)
    supervisor.wait_healthy(tmp_path, ["sleeper"], Deadline(SOON))
    yield tmp_path
    world.down(tmp_path, print)


@pytest.mark.lab
def test_every_service_of_a_lab_that_is_up_is_healthy_and_has_a_log(lab: World) -> None:
    found = supervisor.status(lab.state)
    assert {one.name for one in found} == EXPECTED
    assert {one.name for one in found if not one.healthy or not one.log.exists()} == set()


@pytest.mark.lab
def test_a_lab_that_is_up_is_described_by_its_state_directory(lab: World) -> None:
    assert World.load(lab.state) == lab
    assert lab.kickstart.exists()
    assert lab.demo_repository.is_dir()
    amqp.check_exchange(lab.amqp_url, lab.exchange)
    with PrefectApi(lab.prefect_api_url) as api:
        assert api.deployment_id("all-packages/production")


@pytest.mark.lab
def test_starting_a_lab_that_is_up_changes_nothing_and_says_so(lab: World) -> None:
    before = {one.name: one.pid for one in supervisor.status(lab.state)}
    said: list[str] = []
    assert world.up(lab.state, lab.cache, said.append) == lab
    assert said == ["the lab is up already"]
    assert {one.name: one.pid for one in supervisor.status(lab.state)} == before


@pytest.mark.lab
@pytest.mark.parametrize("name", ["relay", "intake", "prefect-worker"])
def test_a_killed_service_of_the_lab_comes_back_healthy(lab: World, name: str) -> None:
    before = last_start(lab.state, name)
    assert before
    assert supervisor.kill(lab.state, name, signal.SIGKILL)
    wait_for("another process", lambda: last_start(lab.state, name) != before, SOON)
    supervisor.wait_healthy(lab.state, [name], Deadline(SOON))


def test_a_lab_that_is_half_up_is_refused_and_down_is_named(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="half up") as caught:
        world.up(small, tmp_path / "cache", print)
    assert "lab down" in caught.value.hint
    assert "lab.servers.supervisor" in caught.value.evidence
    assert supervisor.status(small)[0].healthy


def test_two_starts_at_the_same_time_are_refused(tmp_path: Path) -> None:
    with starting(tmp_path), pytest.raises(ConfigurationError, match="another process is starting"):
        world.up(tmp_path, tmp_path / "cache", print)


def test_a_state_directory_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write") as caught:
        world.up(tmp_path / "file" / "lab", tmp_path / "cache", print)
    assert "DISTGATE_LAB_STATE" in caught.value.hint


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_start_that_is_broken_off_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    # With an empty cache the start is busy making the repository for minutes.
    environment = {"DISTGATE_CACHE_DIR": str(tmp_path / "cache")}
    argv = [sys.executable, "-c", INTERRUPTIBLE, "lab", "up", "--state", str(tmp_path / "lab")]
    said = tmp_path / "up.log"
    starter = spawn(argv, log_to=said, env=environment)
    wait_for("the first services", lambda: "the broker is there" in said.read_text(), SOON)
    starter.send_signal(number)
    assert starter.wait(SOON) == 128 + number
    assert "the lab is down" in said.read_text()
    assert teardown.leftovers(tmp_path / "lab") == []


def test_asking_for_a_lab_that_is_not_up_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no lab is up") as caught:
        World.load(tmp_path)
    assert "lab up" in caught.value.hint


def test_down_without_a_lab_is_no_error(tmp_path: Path) -> None:
    said: list[str] = []
    world.down(tmp_path, said.append)
    assert said == ["the lab is down"]
