"""Each deployment of prefect.yaml on a fresh server, started as people or events start it, and what its run did.

The dear ones are a rehearsal.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import yaml
from commits import ALL, FAILURE, PREFIX, Commit, push, push_broken, push_to_host, status_of

from distgate.bus.amqp import publish
from distgate.bus.queues import Subscription
from distgate.changes.change import Change
from distgate.changes.retest import offset_of
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import RUNS
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.process import run
from distgate.waiting import wait_for
from lab.dist_git.demo_package import ATOMIC_BRANCH, NAME
from lab.dist_git.git_receive import TOPIC as PUSHED
from lab.dist_git.git_receive import receive_body
from lab.dist_git.repository import repository_path
from lab.run_page import latest_artifact
from lab.servers import supervisor
from lab.sites import staging
from lab.world import PROJECT, SITE, World

# A fixture's and a rehearsal's runs count as one test's time.
pytestmark = [pytest.mark.lab, pytest.mark.guest, pytest.mark.timeout(1500)]
#: Seconds for a run without a guest, and for one through a whole host.
SOON, LONG = 240.0, 1200.0
#: The head of rawhide does not build; its name puts it at the very beginning of a window of retests.
BROKEN = next(name for name in map("broken-{}".format, range(1000)) if offset_of(name, 1).total_seconds() < 2)
WITH_TESTS = {"tests/tests.yml": "- hosts: localhost\n  tags: [classic]\n"}

#: What shows that a deployment does its work, by its name.
CASES: dict[str, Callable[[World], None]] = {}
#: Those that take minutes, or are shown by others each time: tests of their flows, or of a push.
REHEARSED = {
    *("all-packages/production", "all-packages/staging", "atomic-host/production", "atomic-host/manual"),
    *("base-images/every-night", "package-lists/every-week"),
}


def shows(deployment: str) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def keep(case: Callable[[World], None]) -> Callable[[World], None]:
        CASES[deployment] = case
        return case

    return keep


def start(lab: World, deployment: str, **parameters: Any) -> str:
    """Start a run as people do; its ID."""
    words = [word for name, value in parameters.items() for word in ("--param", f"{name}={json.dumps(value)}")]
    said = run(["prefect", "deployment", "run", deployment, *words], timeout=200, env=lab.environment).output
    found = re.search(r"UUID: ([0-9a-f-]{36})", said)
    assert found, said
    return found[1]


def ended(lab: World, run_id: str, seconds: float = SOON) -> dict[str, Any]:
    """A run as Prefect's API has it, once it is over."""

    def look() -> dict[str, Any] | None:
        known: dict[str, Any] = httpx.get(f"{lab.prefect_api_url}/flow_runs/{run_id}", trust_env=False).json()
        return known if known["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return wait_for(f"run {run_id} to end", look, seconds)


def completed(lab: World, deployment: str, **parameters: Any) -> dict[str, Any]:
    known = ended(lab, start(lab, deployment, **parameters))
    assert known["state_name"] == "Completed", known["state"]["message"]
    return known


def said_by(known: dict[str, Any]) -> str:
    return str(known["state"]["message"])


def table(lab: World, run_id: str, key: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(latest_artifact(lab.prefect_api_url, run_id, key))
    return rows


def runs_of(lab: World, deployment: str) -> list[FlowRun]:
    with PrefectApi(lab.prefect_api_url) as prefect:
        return prefect.flow_runs(deployment=deployment)


def is_of(lab: World, commit: Commit, deployment: str) -> bool:
    return commit.ended().id in {one.id for one in runs_of(lab, deployment)}


@pytest.fixture(scope="module")
def broken(lab: World) -> str:
    """The latest commit of the package BROKEN, of which the bus has not heard."""
    return push_broken(lab, BROKEN, "rawhide", WITH_TESTS, told=False)


@shows("all-packages/production")
def a_push_starts_one_run_which_says_everything(lab: World) -> None:
    commit = push(lab)
    commit.until("complete")
    assert commit.said == status_of(ALL)
    assert is_of(lab, commit, "all-packages/production")


@shows("all-packages/staging")
def a_staging_push_is_tested_by_the_staging_worker_and_told_to_the_staging_bus_alone(lab: World) -> None:
    rev = push_broken(lab, "staged", told=False)
    with staging.staging(lab) as site, Subscription(lab.amqp_url, lab.exchange, [f"{PREFIX}#"]) as production:
        bus = Subscription(site.amqp_url, site.exchange, [f"{staging.TOPIC}.#"], queue=f"test.{uuid.uuid4().hex[:8]}")
        commit = Commit(site, bus, rev, PREFIX.replace("org.centos.prod", staging.TOPIC))
        body = receive_body(repository_path(lab.state / "dist-git", "staged"), "f41", rev, "packager")
        publish(PUSHED, body, url=site.amqp_url, exchange=site.exchange)
        assert commit.until("complete") == FAILURE
        assert is_of(lab, commit, "all-packages/staging")
        assert commit.room().is_dir()
        (known,) = Ledger(site.ledger_url).runs_of(f"rpms/staged@f41#{rev}")
        assert known.status == "FAILURE"
        assert Ledger(lab.ledger_url).runs_of(known.change.key) == []
        assert production.receive(1) is None


@shows("all-packages/manual")
def a_package_that_is_named_is_tested_at_its_head_and_its_run_is_called_after_the_commit(lab: World) -> None:
    known = ended(lab, start(lab, "all-packages/manual", change={"repo": BROKEN}))
    (rev,) = {tag for tag in known["tags"] if len(tag) == 40}
    assert known["name"] == f"{BROKEN} rawhide {rev[:7]}"
    assert (known["state_type"], known["work_queue_name"]) == ("FAILED", "default")
    assert [one.body["status"] for one in Ledger(lab.ledger_url).messages_of(known["id"])][-2:] == ["FAILURE"] * 2


@shows("atomic-host/production")
def a_push_to_a_host_s_package_is_taken_through_the_whole_host(lab: World) -> None:
    commit = push_to_host(lab)
    assert commit.until("complete", LONG)[-1] == "complete SUCCESS"
    assert is_of(lab, commit, "atomic-host/production")


@shows("atomic-host/manual")
def a_host_s_package_is_tested_again_from_a_stage_on(lab: World) -> None:
    named = {"repo": NAME, "branch": ATOMIC_BRANCH}
    first = runs_of(lab, "atomic-host/production")[0]
    known = ended(lab, start(lab, "atomic-host/manual", change=named, start_from="compose.test.integration"), LONG)
    assert known["state_name"] == "Completed", known["state"]["message"]
    before, after = (Ledger(lab.ledger_url).messages_of(one) for one in (first.id, known["id"]))
    assert after[-1].body["status"] == "SUCCESS"
    assert after[-1].body["compose_rev"] == before[-1].body["compose_rev"]


@shows("retest-rawhide/rawhide")
def packages_that_are_picked_are_tested_again(lab: World) -> None:
    wish = {"packages": [BROKEN, NAME], "exclude": [NAME], "has_tests": True, "fresh_days": 0, "window_minutes": 1}
    known = completed(lab, "retest-rawhide/rawhide", wish=wish)
    assert said_by(known).startswith("1 of 1 packages are tested again, from ")
    (row,) = table(lab, known["id"], "retest")
    assert (row["package"], bool(row["starts (UTC)"])) == (BROKEN, True)

    def picked() -> list[FlowRun]:
        return [one for one in runs_of(lab, "all-packages/manual") if "retest" in one.tags]

    wait_for("the picked run to end", lambda: picked() and all(one.finished for one in picked()), SOON)
    (one,) = picked()
    assert one.name == f"{BROKEN} rawhide {row['commit'][:7]}"
    assert (one.state_type, one.parameters["again"]) == ("FAILED", True)
    answered = Ledger(lab.ledger_url).run(one.id)
    assert answered
    assert (answered.status, answered.facts.blame) == ("FAILURE", "package")


@shows("base-images/every-night")
def base_images_for_which_nothing_changed_stay_current(lab: World) -> None:
    known = completed(lab, "base-images/every-night")
    rows = table(lab, known["id"], "base-images")
    assert rows
    assert {row["outcome"] for row in rows} == {"unchanged"}
    assert said_by(known) == f"{len(rows)} of {len(rows)} base images are current"


@shows("clean-up/every-night")
def old_artifacts_are_removed_and_listed(lab: World) -> None:
    old = lab.artifacts_dir / str(uuid.uuid4())
    old.mkdir()
    (old / "build.log").write_text("once upon a time\n")
    os.utime(old, times=(0, time.time() - 40 * 86400))
    known = completed(lab, "clean-up/every-night")
    assert "1 run directories" in said_by(known)
    assert old.name in {row["what"] for row in table(lab, known["id"], "clean-up")}
    assert not old.exists()


@shows("worker-health/hosts")
def every_host_looks_at_itself(lab: World) -> None:
    known = completed(lab, "worker-health/hosts")
    assert (known["work_queue_name"], SITE in said_by(known)) == ("health", True)
    looks = [one for one in runs_of(lab, "worker-health/hosts") if one.parameters.get("host") == SITE]
    look = ended(lab, looks[0].id)
    assert (look["name"], look["work_queue_name"]) == (f"health of {SITE}", f"host-{SITE}")
    assert look["state_name"] == "Completed", look["state"]["message"]
    rows = table(lab, look["id"], "worker-health")
    assert {"kvm", "koji", "broker", "ledger"} <= {row["check"] for row in rows}
    assert {row["state"] for row in rows if row["check"]} == {"ok"}  # a line without a check is a hint


@shows("package-lists/every-week")
def the_list_of_a_branch_is_made_anew_and_keeps_what_people_wrote(lab: World) -> None:
    known = completed(lab, "package-lists/every-week", branches=[ATOMIC_BRANCH])
    assert said_by(known) == "1 of 1 package lists are made anew"
    lines = (lab.package_lists / f"{ATOMIC_BRANCH}.txt").read_text().splitlines()
    assert lines[0] == NAME
    assert "lab-debian" in lines  # the source of all that the lab's treefile names


@shows("reconciler/every-hour")
def a_run_without_an_end_is_ended_though_the_reconciler_is_not_there(lab: World) -> None:
    ledger, lost = Ledger(lab.ledger_url), str(uuid.uuid4())
    supervisor.hold(lab.state, "reconciler")
    try:
        gone = Change(namespace="rpms", repo="gone", rev=uuid.uuid4().hex + "0" * 8, branch="f41", username="jane")
        ledger.claim(gone, lost, f"{lab.prefect_ui_url}/runs/flow-run/{lost}")
        with ledger.transaction() as connection:
            connection.execute(RUNS.update().where(RUNS.c.run_id == lost).values(beat_at=0))
        assert said_by(completed(lab, "reconciler/every-hour")) == "1 things were mended or told of"
    finally:
        supervisor.release(lab.state, "reconciler")
    assert [one.body["status"] for one in ledger.messages_of(lost)] == ["ABORTED"]


def described() -> list[str]:
    """Every deployment of prefect.yaml, as flow/name."""
    found = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    return [f"{one['entrypoint'].rpartition('.')[2].replace('_', '-')}/{one['name']}" for one in found]


def test_every_deployment_of_the_file_has_a_case() -> None:
    assert described() == list(CASES)


def test_they_are_what_a_fresh_server_has(lab: World) -> None:
    with PrefectApi(lab.prefect_api_url) as prefect:
        assert {prefect.pool_of(name) for name in described()} == {"distgate"}


@pytest.mark.parametrize(
    "deployment",
    [pytest.param(name, marks=[pytest.mark.rehearsal] if name in REHEARSED else []) for name in CASES],
)
@pytest.mark.usefixtures("broken")
def test_a_deployment_does_its_work(lab: World, deployment: str) -> None:
    CASES[deployment](lab)


def test_a_run_for_staging_that_a_worker_of_production_takes_is_refused(lab: World) -> None:
    change = {"namespace": "rpms", "repo": "strayed", "rev": uuid.uuid4().hex + "0" * 8, "branch": "f41"}
    with PrefectApi(lab.prefect_api_url) as prefect:
        strayed = prefect.create_flow_run(
            "all-packages/staging", {"change": change}, idempotency_key=uuid.uuid4().hex, queue="default"
        )
    known = ended(lab, strayed.id)
    assert known["state_type"] in ("FAILED", "CRASHED")
    assert Ledger(lab.ledger_url).run(strayed.id) is None
    wish = {"logs": {"flow_run_id": {"any_": [strayed.id]}}}
    said = httpx.post(f"{lab.prefect_api_url}/logs/filter", json=wish, trust_env=False).json()
    assert "the run is for staging, and its worker for production" in f"{said} {said_by(known)}"
