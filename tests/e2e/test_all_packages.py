"""Commits through the whole pipeline: real push, real broker, real build, real boot, real tests."""

import json
import sys
import uuid
from pathlib import Path

import httpx
import koji
import pytest
from commits import ALL, IMAGE, PACKAGE, PREFIX, Commit, push, status_of

from distgate.bus.amqp import publish
from distgate.bus.queues import Subscription, messages_in
from distgate.bus.render import NEVER_EMPTY
from distgate.ledger.ledger import Ledger
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.process import run
from distgate.waiting import wait_for
from distgate_messages.allpackages import StageV1
from lab.dist_git.demo_package import push_change
from lab.dist_git.git_receive import TOPIC, receive_body
from lab.dist_git.repository import create_branch
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
            "The unit tests failed: ",
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


def by_hand(commit: Commit, **parameters: object) -> tuple[FlowRun, list[dict[str, str]]]:
    """A run that somebody starts, with what was said about it, each message as the contract has it."""
    known = len(commit.bodies)
    with PrefectApi(commit.world.prefect_api_url) as prefect:
        started = prefect.create_flow_run("all-packages/manual", parameters, idempotency_key=uuid.uuid4().hex)
    commit.until("complete")
    bodies = commit.bodies[known:]
    for body in bodies:
        StageV1(topic=body["topic"], body=body).validate()
        assert all(body[name] for name in NEVER_EMPTY)
    assert {(body["build_id"], body["rev"]) for body in bodies} == {(started.id, commit.rev)}
    return started, bodies


def test_a_koji_build_that_is_named_is_tested_again_and_nothing_is_built(lab: World) -> None:
    commit = push(lab, "compose")
    commit.until("complete")
    first, task = list(commit.bodies), commit.koji_task()
    hub = koji.ClientSession(lab.koji_hub_url)
    before = hub.listTasks(opts={"method": "build"})
    started, second = by_hand(commit, change={"koji_task": task}, again=True)
    assert hub.listTasks(opts={"method": "build"}) == before
    assert [(body["topic"], body["status"], body["nvr"]) for body in second] == [
        (body["topic"], body["status"], body["nvr"]) for body in first
    ]
    with PrefectApi(lab.prefect_api_url) as prefect:
        known = prefect.flow_run(started.id)
    assert known
    assert known.name == f"dos2unix f41 {commit.rev[:7]}"


def test_a_run_that_starts_from_a_stage_takes_what_was_made_before_it_and_says_everything(tested: Commit) -> None:
    (image,) = tested.room().glob("image/*.qcow2")
    made = image.stat().st_mtime_ns
    started, bodies = by_hand(
        tested,
        change={"repo": "dos2unix", "rev": tested.rev, "branch": "f41"},
        start_from="package.test.functional",
    )
    assert [f"{body['topic'].removeprefix(PREFIX)} {body['status']}" for body in bodies] == status_of(ALL)
    assert {body["nvr"] for body in bodies[ALL.index("package.complete") :]} == {tested.bodies[-1]["nvr"]}
    room = tested.room().with_name(started.id)
    assert "result: pass" in (room / "tests/tests/artifacts/results.yml").read_text()
    assert not [path for stage in ("build", "image", "smoke") for path in room.glob(f"{stage}/*")]
    assert image.stat().st_mtime_ns == made
