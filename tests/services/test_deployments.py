"""prefect.yaml on an empty Prefect server: all of it can be deployed, and nothing runs by the clock in the lab."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest
import yaml

from distgate.changes.change import Change
from distgate.doctor.health import queue_of
from distgate.prefect_api import PrefectApi
from distgate.process import run
from distgate.waiting import wait_for
from lab.sites.entrance import Entrance
from lab.world import PROJECT
from services.trigger import event_of

CHANGE = Change(namespace="rpms", repo="tiny", rev="ef" * 20, branch="f44", username="jane")
SOON = 90.0


@pytest.fixture(scope="module")
def deployments(gate: Entrance) -> dict[str, dict[str, Any]]:
    """What the server has after it was deployed, by flow and name."""
    with httpx.Client(base_url=f"{gate.prefect.api_url}/", timeout=60, trust_env=False) as client:
        flows = {one["id"]: one["name"] for one in client.post("flows/filter", json={}).json()}
        found = client.post("deployments/filter", json={}).raise_for_status().json()
    return {f"{flows[one['flow_id']]}/{one['name']}": one for one in found}


def described() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    return found


def test_every_deployment_of_the_file_is_there(deployments: dict[str, dict[str, Any]]) -> None:
    assert set(deployments) >= {
        *("all-packages/production", "all-packages/staging", "all-packages/manual"),
        *("retest-rawhide/rawhide", "base-images/every-night", "clean-up/every-night"),
        *("worker-health/hosts", "reconciler/every-hour", "package-lists/every-week"),
    }
    entrypoints = {one["entrypoint"] for one in described()}
    assert {one["entrypoint"] for one in deployments.values()} >= entrypoints
    assert all(one.startswith("flows.") for one in entrypoints)


def test_what_has_a_schedule_is_paused_in_the_lab(deployments: dict[str, dict[str, Any]]) -> None:
    scheduled = {name for name, one in deployments.items() if one["schedules"]}
    assert scheduled >= {"retest-rawhide/rawhide", "clean-up/every-night", "worker-health/hosts"}
    assert all(deployments[name]["paused"] for name in scheduled)
    assert not deployments["all-packages/production"]["paused"]


@pytest.mark.parametrize(
    ("environment", "other"), [("staging", "production"), ("production", "staging")], ids=["staging", "production"]
)
def test_an_accepted_change_starts_one_run_of_its_own_environment(
    gate: Entrance, environment: str, other: str
) -> None:
    change = CHANGE.model_copy(update={"repo": f"tiny-{environment}"})
    with PrefectApi(gate.prefect.api_url) as api:

        def runs(where: str) -> list[str]:
            found = api.flow_runs(deployment=f"all-packages/{where}")
            return [one.id for one in found if one.parameters.get("change", {}).get("repo") == change.repo]

        api.post_event(event_of(change, "allpackages", environment))
        wait_for("the run", lambda: runs(environment) or None, SOON)
        assert len(runs(environment)) == 1
        assert runs(other) == []


def test_every_host_that_had_a_worker_is_asked_once_for_its_health(gate: Entrance) -> None:
    with PrefectApi(gate.prefect.api_url) as api:
        for host in ("kvm01", "kvm02"):
            api.describe_queue("distgate", queue_of(host), "takes runs")
        assert api.pool_of("worker-health/hosts") == "distgate"
        own = "from flows.worker_health import worker_health; worker_health()"
        for _ in range(2):  # nobody answers the first time, and is not asked a second time
            run([sys.executable, "-c", own], timeout=200, env=gate.prefect.environment, cwd=PROJECT)
        asked = [one for one in api.flow_runs(deployment="worker-health/hosts") if one.parameters.get("host")]
    assert sorted((one.parameters["host"], one.name) for one in asked) == [
        ("kvm01", "health of kvm01"),
        ("kvm02", "health of kvm02"),
    ]
