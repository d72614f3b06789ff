"""Commits through the pipeline of Atomic Host: trees that hosts upgrade to, an image, a cluster."""

from __future__ import annotations

import json

import httpx
import pytest
from commits import ATOMIC, Commit, push_to_host, status_of

from distgate.drivers.base import ComposedTree
from distgate.ledger import Ledger
from distgate.process import run
from distgate.rendering import NEVER_EMPTY
from distgate_messages.atomic import StageV1
from lab.demo_package import ATOMIC_BRANCH, NAME
from lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.guest]

PACKAGE = [f"package.{state}" for state in ("queued", "running", "complete")]
FUNCTIONAL = [f"package.test.functional.{state}" for state in ("queued", "running", "complete")]
COMPOSE = [f"compose.{state}" for state in ("running", "complete")]
INTEGRATION = [f"compose.test.integration.{state}" for state in ("queued", "running", "complete")]
IMAGE = [f"{stage}.{state}" for stage in ("image", "image.test.smoke") for state in ("running", "complete")]
E2E = [f"compose.test.e2e.{state}" for state in ("queued", "running", "complete")]
HOST = [*PACKAGE, *FUNCTIONAL, *COMPOSE, *INTEGRATION]
REF = f"fedora/{ATOMIC_BRANCH}/x86_64/atomic-host"


def rev_of(world: World, ref: str = REF) -> str:
    """The commit that the branch's published repository has under ``ref``."""
    repository = world.trees_dir / ATOMIC_BRANCH / "ostree"
    return run(["ostree", f"--repo={repository}", "rev-parse", ref], timeout=60).output.strip()


def tree_of(commit: Commit) -> dict[str, object]:
    found: dict[str, object] = json.loads((commit.room() / "compose/tree.json").read_text())
    assert set(found) == set(ComposedTree.__dataclass_fields__)
    return found


def diff_of(commit: Commit) -> str:
    return (commit.room() / "compose/package-diff.txt").read_text()


@pytest.fixture(scope="module")
def first(lab: World) -> Commit:
    """A healthy commit, the first of its branch, once its last message was read from the broker."""
    commit = push_to_host(lab)
    commit.until("complete", 1200)
    return commit


@pytest.fixture(scope="module")
def head(first: Commit) -> str:
    """The commit of the tree that ``first`` left, before the next one was composed."""
    return rev_of(first.world)


@pytest.fixture(scope="module")
def second(first: Commit, head: str) -> Commit:
    commit = push_to_host(first.world)
    commit.until("complete", 1200)
    return commit


def test_the_first_commit_gives_every_message_of_the_contract_in_its_order(first: Commit) -> None:
    assert first.said == status_of([*HOST, *IMAGE, *E2E, "complete"])
    for body in first.bodies:
        assert all(body[name] for name in NEVER_EMPTY)
        StageV1(topic=body["topic"], body=body).validate()


def test_what_is_said_of_the_tree_is_what_was_published(first: Commit, head: str) -> None:
    said = {body["topic"].removeprefix(ATOMIC): body for body in first.bodies}
    assert said["compose.running"]["compose_rev"] == "''"
    assert {said[name]["compose_rev"] for name in ("compose.complete", *INTEGRATION, "complete")} == {head}
    url = said["compose.complete"]["compose_url"]
    assert httpx.get(f"{url}/refs/heads/{REF}", trust_env=False).text.strip() == head
    assert said["package.complete"]["nvr"].endswith(f".{first.rev[:7]}.fc42.src")
    assert first.rev[:7] not in said["package.complete"]["original_spec_nvr"]
    assert httpx.get(said["package.test.functional.queued"]["package_url"], trust_env=False).status_code == 200


def test_the_image_is_named_after_the_commit_and_is_the_latest(first: Commit, head: str) -> None:
    body = next(body for body in first.bodies if body["topic"].endswith("image.test.smoke.complete"))
    assert body["image_name"].startswith("fedora-atomic-")
    assert body["image_name"].endswith(f"-{head[:15]}.qcow2")
    answer = httpx.head(body["image_url"], trust_env=False)
    assert int(answer.headers["content-length"]) > 1 << 20
    latest = first.world.trees_dir / ATOMIC_BRANCH / "images" / "latest"
    assert latest.resolve().name == body["image_name"]


def test_a_second_commit_upgrades_the_first_one_s_host_and_makes_no_image(
    first: Commit, head: str, second: Commit
) -> None:
    assert second.said == status_of([*HOST, "complete"])
    assert tree_of(second)["parent"] == head
    assert rev_of(second.world) == second.bodies[-1]["compose_rev"]
    report = json.loads((second.room() / "integration/upgrade/upgrade.json").read_text())
    assert (report["before"], report["after"], report["rolled_back_to"]) == (head, rev_of(second.world), head)


def test_both_package_diffs_name_what_changed(first: Commit, second: Commit) -> None:
    old, new = (commit.bodies[-1]["nvr"].removesuffix(".src") for commit in (first, second))
    assert f"{old}.x86_64" in diff_of(first)
    changed = [line for line in diff_of(second).splitlines() if line.strip()]
    assert len(changed) == 1
    assert NAME in changed[0]
    assert old.removeprefix(f"{NAME}-") in changed[0]
    assert new.removeprefix(f"{NAME}-") in changed[0]


@pytest.mark.parametrize(
    ("stage", "messages", "words"),
    [
        (
            "ostree",
            status_of([*PACKAGE, *FUNCTIONAL, *COMPOSE, "complete"], compose__complete="FAILURE", complete="FAILURE"),
            "",
        ),
        (
            "integration",
            status_of([*HOST, "complete"], compose__test__integration__complete="FAILURE", complete="FAILURE"),
            "",
        ),
    ],
)
def test_a_commit_that_breaks_the_host_leaves_the_branch_where_it_was(
    second: Commit, stage: str, messages: list[str], words: str
) -> None:
    before = rev_of(second.world)
    commit = push_to_host(second.world, stage)
    commit.until("complete", 1200)
    assert commit.said == messages
    assert rev_of(second.world) == before
    known = Ledger(second.world.ledger_url).run(commit.bodies[0]["build_id"])
    assert known is not None
    assert known.pipeline == "atomic"
