"""Prefect past one machine: PostgreSQL, Redis, API and background services apart, and two workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from distgate.prefect_api import FlowRun, PrefectApi
from distgate.waiting import wait_for
from lab.servers import postgresql, prefect_cluster, prefect_server, supervisor
from lab.servers.prefect_cluster import PrefectCluster
from lab.servers.service import save_service

#: Seconds; a machine under load takes minutes for what a calm one does at once.
PATIENCE = 600.0
#: The deployment that events start. The other one's runs wait for the night.
PRODUCTION = "meet/production"

PREFECT_YAML = """\
name: tiny
deployments:
  - name: production
    entrypoint: tiny.meet
    work_pool: {name: distgate}
    triggers:
      - type: event
        match: {prefect.resource.id: "tiny.*"}
        expect: ["tiny.came"]
        posture: Reactive
        threshold: 1
        within: 0
        parameters: {number: "{{ event.payload.number }}"}
  - name: nightly
    entrypoint: tiny.meet
    work_pool: {name: distgate}
    parameters: {number: night}
    schedules: [{cron: "0 3 * * *", timezone: UTC}]
"""
# Both runs wait for each other: they end only when both workers had one.
TINY = """\
import os, pathlib, time
from prefect import flow

@flow
def meet(number: str) -> None:
    room = pathlib.Path(os.environ["TINY_ROOM"])
    (room / number).write_text(os.environ["TINY_WORKER"])
    while len(list(room.iterdir())) < 2:
        time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def project(cluster: PrefectCluster, cluster_state: Path) -> Path:
    """A tiny project, deployed, with two workers that take one run at a time."""
    project, room = cluster_state / "project", cluster_state / "room"
    for directory in (project, room):
        directory.mkdir()
    (project / "prefect.yaml").write_text(PREFECT_YAML)
    (project / "tiny.py").write_text(TINY)
    environment = {"PYTHONPATH": str(project), "TINY_ROOM": str(room), "PATH": os.environ["PATH"]}
    prefect_server.deploy(cluster.server, project, environment)
    for name in ("one", "two"):
        save_service(cluster_state, cluster.worker(name, {**environment, "TINY_WORKER": name}, project))
    return project


@pytest.fixture
def api(cluster: PrefectCluster) -> PrefectApi:
    return PrefectApi(cluster.server.api_url, patience=PATIENCE)


@pytest.mark.usefixtures("project")
def test_runs_that_events_start_are_shared_by_two_workers(api: PrefectApi, cluster_state: Path) -> None:
    for number in ("1", "2"):
        api.post_event(
            {"event": "tiny.came", "resource": {"prefect.resource.id": "tiny.1"}, "payload": {"number": number}}
        )
    ended = wait_for("both runs to end", lambda: ended_runs(api, {"1", "2"}), PATIENCE)
    assert {run.state_name for run in ended} == {"Completed"}
    assert sorted((cluster_state / "room" / number).read_text() for number in ("1", "2")) == ["one", "two"]


@pytest.mark.usefixtures("project")
def test_events_outlive_a_kill_of_the_process_that_answers_them(api: PrefectApi, cluster_state: Path) -> None:
    wanted = {f"again-{number}" for number in range(10)}
    for number in wanted:
        payload = {"number": number}
        api.post_event({"event": "tiny.came", "resource": {"prefect.resource.id": "tiny.1"}, "payload": payload})
    assert supervisor.kill(cluster_state, prefect_cluster.BACKGROUND, signal.SIGKILL)
    # One that it had answered and not yet put aside may have two runs: the flow's claim ends the second one.
    wait_for("a run for each event", lambda: wanted <= {number_of(run) for run in started_runs(api)}, PATIENCE)


def test_the_server_keeps_its_tables_in_postgresql(cluster: PrefectCluster) -> None:
    engine = create_engine(cluster.database.url(postgresql.PREFECT))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM work_pool WHERE name = 'distgate'")).scalar() == 1


def test_what_the_processes_tell_each_other_is_in_redis(cluster: PrefectCluster) -> None:
    from redis import Redis

    streams = {key.decode() for key in Redis.from_url(cluster.messages.url(0)).scan_iter(_type="stream")}
    assert {"events"} <= streams


@pytest.mark.usefixtures("project")
def test_a_schedule_that_is_switched_on_plans_its_runs(api: PrefectApi, cluster: PrefectCluster) -> None:
    with httpx.Client(base_url=f"{cluster.server.api_url}/", timeout=60, trust_env=False) as client:
        found = client.get("deployments/name/meet/nightly").raise_for_status().json()
        client.post(f"deployments/{found['id']}/resume_deployment").raise_for_status()
        try:
            planned = wait_for("its next runs", lambda: api.flow_runs(deployment="meet/nightly") or None, PATIENCE)
        finally:
            client.post(f"deployments/{found['id']}/pause_deployment").raise_for_status()
    assert {one.state_type for one in planned} == {"SCHEDULED"}


def test_a_cluster_is_the_same_when_it_is_prepared_again(cluster: PrefectCluster, cluster_state: Path) -> None:
    assert prefect_cluster.prepare(cluster_state) == cluster


def started_runs(api: PrefectApi) -> list[FlowRun]:
    return api.flow_runs(deployment=PRODUCTION)


def ended_runs(api: PrefectApi, numbers: set[str]) -> list[FlowRun] | None:
    """The runs for the events with ``numbers``; None until each has one and all of them have ended."""
    runs = [run for run in started_runs(api) if number_of(run) in numbers]
    complete = {number_of(run) for run in runs} == numbers and all(run.finished for run in runs)
    return runs if complete else None


def number_of(run: FlowRun) -> str:
    return str(run.parameters["number"])
