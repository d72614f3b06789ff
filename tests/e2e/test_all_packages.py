"""Commits through the whole pipeline: real push, real broker, real build, real boot, real tests."""

import json
import sys
import uuid
from pathlib import Path

import httpx
import pytest
from commits import ALL, IMAGE, PACKAGE, PREFIX, Commit, push, status_of

from distgate.drivers.amqp import publish
from distgate.drivers.amqp_queues import Subscription, messages_in
from distgate.drivers.prefect_api import PrefectApi
from distgate.ledger import Ledger
from distgate.process import run
from distgate.rendering import NEVER_EMPTY
from distgate.waiting import wait_for
from lab.bare_repository import create_branch
from lab.demo_package import push_change
from lab.git_receive import TOPIC, receive_body
from lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.guest]


def artifact(world: World, run_id: str, key: str) -> str:
    wish = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
    (found,) = httpx.post(f"{world.prefect_api_url}/artifacts/filter", json=wish, trust_env=False).json()
    return str(found["data"])


@pytest.fixture(scope="module")
def tested(lab: World) -> Commit:
    """A healthy commit, once its last message was read from the broker."""
    commit = push(lab)
    commit.until("complete")
    return commit


def test_a_healthy_commit_gives_thirteen_messages_in_order(tested: Commit) -> None:
    assert tested.said == status_of(ALL)
    for number, body in enumerate(tested.bodies):
        assert all(body[name] for name in NEVER_EMPTY)
        assert bool(body["nvr"]) == bool(body["original_spec_nvr"]) == (number >= ALL.index("package.complete"))
    assert {body.get("type") for body in tested.bodies} == {None, "qcow2", "''"}
    assert len({body["build_id"] for body in tested.bodies}) == 1


def test_the_run_is_found_by_its_commit_and_its_page_says_what_happened(tested: Commit) -> None:
    run = tested.ended()
    assert (run.state_name, run.name) == ("Completed", f"dos2unix f41 {tested.rev[:7]}")
    assert {"rpms", "dos2unix", "f41", tested.rev} <= set(run.tags)
    assert tested.bodies[0]["build_url"].endswith(run.id)
    summary = artifact(tested.world, run.id, "summary")
    assert "SUCCESS" in summary
    assert tested.bodies[-1]["nvr"] in summary
    assert [row["status"] for row in json.loads(artifact(tested.world, run.id, "stages"))] == ["SUCCESS"] * 4
    assert "buildArch (x86_64) CLOSED" in artifact(tested.world, run.id, "koji-tasks")


def test_everything_that_the_run_made_is_in_its_directory_and_served(tested: Commit) -> None:
    room = tested.room()
    nvr = tested.bodies[-1]["nvr"]
    assert (room / f"build/{nvr}.x86_64.rpm").is_file()
    assert (room / f"image/{nvr}.qcow2").is_file()
    assert f"{nvr}.x86_64" in json.loads((room / "image/image.json").read_text())["installed"]
    run([Path(sys.executable).parent / "ksvalidator", room / f"image/{nvr}.ks"], timeout=60)
    assert (room / "smoke/console.log").stat().st_size > 0
    assert "result: pass" in (room / "tests/tests/artifacts/results.yml").read_text()
    answer = httpx.get(f"{tested.world.artifacts_url}/{room.name}/tests/tests/artifacts/test.log", trust_env=False)
    assert answer.text.startswith(":: ")
    assert answer.headers["content-type"].startswith("text/plain")


def test_the_same_push_said_three_times_more_starts_no_second_run(tested: Commit) -> None:
    world = tested.world
    body = receive_body(world.demo_repository, "f41", tested.rev, "packager")
    for _ in range(3):
        publish(TOPIC, body, url=world.amqp_url, exchange=world.exchange)
    log = world.state / "logs/intake.log"
    wait_for("the intake to read them", lambda: log.read_text().count(f"{tested.rev} is known already") == 3, 30)
    assert messages_in(world.amqp_url, world.queue) == 0
    assert len(tested.flow_runs()) == 1


def test_a_push_to_an_unwatched_branch_is_ignored_and_starts_no_run(lab: World) -> None:
    create_branch(lab.demo_repository, "epel9", "f41")
    with Subscription(lab.amqp_url, lab.exchange, [f"{PREFIX}package.ignored"]) as bus:
        rev = push_change(lab.demo_repository, "epel9")
        message = wait_for("the message", lambda: bus.receive(1), 30)
    assert (message.body["rev"], message.body["branch"], message.body["status"]) == (rev, "epel9", "SUCCESS")
    assert Commit(lab, bus, rev).flow_runs() == []
    assert rev not in {change.rev for change in Ledger(lab.ledger_url).unclaimed(-1)}


@pytest.mark.parametrize(
    ("stage", "messages", "words"),
    [
        (
            "check",
            status_of([*PACKAGE, "complete"], package__complete="FAILURE", complete="FAILURE"),
            "the unit tests failed: ",
        ),
        (
            "compose",
            status_of([*PACKAGE, *IMAGE, "complete"], image__complete="FAILURE", complete="FAILURE"),
            "nothing provides libnosuchconv",
        ),
    ],
)
def test_a_commit_that_breaks_a_stage_fails_there_and_its_package_is_to_blame(
    lab: World, stage: str, messages: list[str], words: str
) -> None:
    commit = push(lab, stage)
    commit.until("complete")
    assert commit.said == messages
    run = commit.ended()
    assert run.state_type == "FAILED"
    summary = artifact(lab, run.id, "summary")
    assert "**Blame: package.**" in summary
    assert words in summary


def test_the_same_change_can_be_started_by_hand_again(lab: World) -> None:
    commit = push(lab, "compose")
    commit.until("complete")
    first = commit.ended()
    with_again = {"change": first.parameters["change"], "again": True}
    with PrefectApi(lab.prefect_api_url) as prefect:
        prefect.create_flow_run("all-packages/manual", with_again, idempotency_key=uuid.uuid4().hex)
    commit.until("complete")
    assert len({body["build_id"] for body in commit.bodies}) == 2
    assert [line for line in commit.said if line.startswith("complete")] == ["complete FAILURE"] * 2
