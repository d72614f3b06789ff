"""Commits through the pipeline of Atomic Host: trees that hosts upgrade to, an image, a cluster."""

from __future__ import annotations

import json
import math

import httpx
import pytest
from commits import ATOMIC, Commit, check_books, push_to_host, status_of

from distgate.bus.render import NEVER_EMPTY
from distgate.ledger.ledger import Ledger
from distgate.ledger.stage_times import stage_times
from distgate.ostree.base import ComposedTree
from distgate.process import run
from distgate_messages.atomic import StageV1
from lab.dist_git.demo_package import ATOMIC_BRANCH, NAME
from lab.world import World

# A fixture's run is a whole pipeline with up to nine boots, and counts as its first test's time.
pytestmark = [pytest.mark.lab, pytest.mark.guest, pytest.mark.timeout(1500)]
#: Seconds that a run gets.
LONG = 1200.0

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


def check_bodies(commit: Commit) -> None:
    for body in commit.bodies:
        assert all(body[name] for name in NEVER_EMPTY)
        assert body.get("compose_url", "there") != ""
        StageV1(topic=body["topic"], body=body).validate()


def diff_of(commit: Commit) -> str:
    return (commit.room() / "compose/package-diff.txt").read_text()


@pytest.fixture(scope="module")
def first(lab: World) -> Commit:
    """A healthy commit, the first of its branch, once its last message was read from the broker."""
    commit = push_to_host(lab)
    commit.until("complete", LONG)
    return commit


@pytest.fixture(scope="module")
def head(first: Commit) -> str:
    """The commit of the tree that ``first`` left, before the next one was composed."""
    return rev_of(first.world)


@pytest.fixture(scope="module")
def both(first: Commit, head: str) -> tuple[Commit, Commit]:
    """A healthy commit, and while it is under way one that fits in no tree."""
    healthy = push_to_host(first.world)
    healthy.until("package.running", LONG)  # pushed within DISTGATE_PUSH_SETTLES, the later one would be tested alone
    commits = healthy, push_to_host(first.world, "ostree")
    for commit in commits:
        commit.until("complete", LONG)
    return commits


@pytest.fixture(scope="module")
def second(both: tuple[Commit, Commit]) -> Commit:
    return both[0]


@pytest.fixture(scope="module")
def refused(both: tuple[Commit, Commit]) -> Commit:
    return both[1]


def test_the_first_commit_gives_every_message_of_the_contract_in_its_order(first: Commit) -> None:
    assert first.said == status_of([*HOST, *IMAGE, *E2E, "complete"])
    check_bodies(first)


def test_what_is_said_of_the_tree_is_what_was_published(first: Commit, head: str) -> None:
    said = {body["topic"].removeprefix(ATOMIC): body for body in first.bodies}
    assert said["compose.running"]["compose_rev"] == "''"
    assert {said[name]["compose_rev"] for name in ("compose.complete", *INTEGRATION, "complete")} == {head}
    url = said["compose.complete"]["compose_url"]
    assert httpx.get(f"{url}/refs/heads/{REF}", trust_env=False).text.strip() == head
    assert said["package.complete"]["nvr"].endswith(f".{first.rev[:7]}.fc42.src")
    assert first.rev[:7] not in said["package.complete"]["original_spec_nvr"]
    packages = httpx.get(
        said["package.test.functional.queued"]["package_url"], trust_env=False, follow_redirects=True
    )
    assert f"{said['package.complete']['nvr'].removesuffix('.src')}.x86_64.rpm" in packages.text


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
    check_bodies(second)
    assert tree_of(second)["parent"] == head
    assert rev_of(second.world) == second.bodies[-1]["compose_rev"]
    report = json.loads((second.room() / "integration/upgrade/upgrade.json").read_text())
    assert (report["before"], report["rev"]) == (head, rev_of(second.world))
    assert report["upgraded"]
    assert report["rolled_back"]


def test_both_package_diffs_name_what_changed(first: Commit, second: Commit) -> None:
    old, new = (commit.bodies[-1]["nvr"].removesuffix(".src") for commit in (first, second))
    assert f"{old}.x86_64" in diff_of(first)
    changed = [line for line in diff_of(second).splitlines() if line.strip()]
    assert len(changed) == 1
    assert NAME in changed[0]
    assert old.removeprefix(f"{NAME}-") in changed[0]
    assert new.removeprefix(f"{NAME}-") in changed[0]


def test_a_commit_that_fits_in_no_tree_fails_there_and_leaves_the_branch_as_it_is(
    second: Commit, refused: Commit
) -> None:
    fails = {"compose__complete": "FAILURE", "complete": "FAILURE"}
    assert refused.said == status_of([*PACKAGE, *FUNCTIONAL, *COMPOSE, "complete"], **fails)
    check_bodies(refused)
    assert rev_of(second.world) == second.bodies[-1]["compose_rev"]
    known = Ledger(second.world.ledger_url).run(refused.bodies[0]["build_id"])
    assert known is not None
    assert (known.pipeline, known.facts.blame) == ("atomic", "package")


def test_of_two_commits_on_one_branch_one_at_a_time_is_composed_and_tested(second: Commit, refused: Commit) -> None:
    ledger = Ledger(second.world.ledger_url)
    turns: list[tuple[float, float]] = []
    for commit, last in ((second, "compose.test.integration"), (refused, "compose")):
        build_id = commit.bodies[0]["build_id"]
        times = {one.suffix: one for one in stage_times(ledger.messages_of(build_id), build_id, {})}
        turns.append((times["compose"].began, times[last].ended or math.inf))
    (_, earlier), (later, _) = sorted(turns)
    assert earlier <= later


@pytest.mark.usefixtures("first", "second", "refused")
def test_the_books_of_this_lab_balance_after_all_that(lab: World) -> None:
    check_books(lab)
