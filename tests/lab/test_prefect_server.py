"""The lab's Prefect server as it is locked: it starts, takes deployments, and its automations start runs."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from distgate.errors import InfrastructureError
from distgate.prefect_api import PrefectApi
from distgate.waiting import wait_for
from lab.servers import prefect_server as lab_prefect
from lab.servers.prefect_server import PrefectServer

SOON = 60.0

# A work pool of its own: the worker of the whole lab must not pick these runs up.
PREFECT_YAML = """\
name: tiny
deployments:
  - name: production
    entrypoint: tiny.greet
    work_pool: {name: nobody}
    triggers:
      - type: event
        match: {prefect.resource.id: "tiny.*"}
        expect: ["tiny.came"]
        posture: Reactive
        threshold: 1
        within: 0
        parameters: {change: "{{ event.payload.change }}"}
"""
TINY = """\
from prefect import flow

@flow
def greet(change: dict[str, str]) -> None:
    print(change)
"""


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What was said about the deployment of a tiny project."""
    project = tmp_path_factory.mktemp("project")
    (project / "prefect.yaml").write_text(PREFECT_YAML)
    (project / "tiny.py").write_text(TINY)
    pool = {"name": "nobody", "type": "process"}
    httpx.post(f"{prefect_server.api_url}/work_pools/", json=pool, trust_env=False).raise_for_status()
    said: list[str] = []
    lab_prefect.deploy(prefect_server, project, {"PYTHONPATH": str(project)}, said.append)
    return said


@pytest.fixture
def api(prefect_server: PrefectServer) -> PrefectApi:
    return PrefectApi(prefect_server.api_url)


def test_the_server_starts_with_the_locked_dependencies(api: PrefectApi) -> None:
    assert api.healthy()
    assert api.version() == version("prefect")


def test_the_server_accepts_the_null_limits_that_its_own_client_sends(prefect_server: PrefectServer) -> None:
    # Newer releases of fastapi answer 422, and `prefect deploy` then fails after its first deployment.
    body = {"workers": None, "offset": None, "limit": None}
    lab_prefect.ensure_pool(prefect_server)
    answer = httpx.post(f"{prefect_server.api_url}/work_pools/distgate/workers/filter", json=body, trust_env=False)
    assert answer.status_code == 200


def test_leases_are_kept_on_disk_so_that_a_restart_forgets_no_slot(prefect_server: PrefectServer) -> None:
    storage = prefect_server.server().environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert storage == "prefect.server.concurrency.lease_storage.filesystem"


def test_deployments_are_applied_and_named(deployed: list[str], api: PrefectApi) -> None:
    assert any("greet/production" in line for line in deployed)
    assert api.deployment_id("greet/production")


@pytest.mark.usefixtures("deployed")
def test_an_event_starts_a_run_through_the_automation_of_the_deployment(api: PrefectApi) -> None:
    change = {"repo": "dos2unix", "title": 'quotes " and {{ 7*7 }} and <&>'}
    api.post_event(
        {"event": "tiny.came", "resource": {"prefect.resource.id": "tiny.1"}, "payload": {"change": change}}
    )
    found = wait_for("the run", lambda: api.flow_runs(deployment="greet/production") or None, SOON)
    assert [one.parameters for one in found] == [{"change": change}]


def test_a_broken_prefect_yaml_is_reported_in_the_words_of_prefect(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "prefect.yaml").write_text(PREFECT_YAML.replace("tiny.greet", "nowhere.greet"))
    with pytest.raises(InfrastructureError) as caught:
        lab_prefect.deploy(prefect_server, tmp_path)
    assert "nowhere" in caught.value.evidence
