"""The base job templates of deploy/pools: Prefect's own with our defaults, and its workers understand them."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path
from typing import Any

import docker
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.workers.process import ProcessJobConfiguration
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

from distgate.settings import Settings

#: What deployments of prefect.yaml may say about a job: both pools must know it.
JOB = {"stream_output": False, "env": {"DISTGATE_SITE": "staging"}}


@pytest.fixture(scope="module")
def made(deploy_directory: Path) -> dict[str, dict[str, Any]]:
    """What deploy/pools/make.py would write with the packages that are installed."""
    spec = importlib.util.spec_from_file_location("pools_make", deploy_directory / "pools" / "make.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written: dict[str, dict[str, Any]] = module.templates()
    return written


@pytest.mark.parametrize("name", ["process.json", "docker.json"])
def test_a_template_is_what_the_installed_packages_make_of_our_defaults(
    name: str, made: dict[str, dict[str, Any]], deploy_directory: Path
) -> None:
    assert json.loads((deploy_directory / "pools" / name).read_text()) == made[name]


def test_the_process_worker_understands_its_template(made: dict[str, dict[str, Any]]) -> None:
    job = asyncio.run(ProcessJobConfiguration.from_template_and_values(made["process.json"], JOB, client=nobody()))
    assert job.stream_output is False
    assert job.env == {"DISTGATE_SITE": "staging"}


@pytest.fixture(scope="module")
def job(made: dict[str, dict[str, Any]]) -> DockerWorkerJobConfiguration:
    """A job of the Docker pool as its worker reads it."""
    return asyncio.run(
        DockerWorkerJobConfiguration.from_template_and_values(made["docker.json"], {}, client=nobody())
    )


def nobody() -> PrefectClient:
    """A client that never connects: no template refers to a block or a variable of the server."""
    return PrefectClient("http://127.0.0.1:1/api")


@pytest.fixture(scope="module")
def request_to_docker(job: DockerWorkerJobConfiguration) -> dict[str, Any]:
    """What docker-py sends to the engine for that job; its own checks refuse words that it does not know."""
    from docker.models.containers import _create_container_args

    # With a server elsewhere the worker need not ask an engine how this host is called inside.
    elsewhere = job.model_copy(update={"env": {**job.env, "PREFECT_API_URL": "https://prefect.example.org/api"}})
    worker = DockerWorker(work_pool_name="distgate")
    settings = worker._build_container_settings(docker_client(), elsewhere)
    return dict(_create_container_args({**settings, "version": "1.41"}))


def docker_client() -> docker.DockerClient:
    """A client that never connects."""
    return docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41")


def test_a_run_gets_the_devices_that_it_needs_and_no_privilege(request_to_docker: dict[str, Any]) -> None:
    host = request_to_docker["host_config"]
    assert {one["PathOnHost"]: one["CgroupPermissions"] for one in host["Devices"]} == {
        "/dev/kvm": "rw",
        "/dev/fuse": "rw",
    }
    assert not host.get("Privileged")
    assert host["CapDrop"] == ["ALL"]
    assert sorted(host["CapAdd"]) == ["SETGID", "SETPCAP", "SETUID", "SYS_ADMIN"]


def test_a_run_has_a_limit_of_memory_and_of_processes(request_to_docker: dict[str, Any]) -> None:
    host = request_to_docker["host_config"]
    assert host["Memory"] == host["MemorySwap"] == 6 << 30
    assert host["PidsLimit"] == 4096


def test_stores_have_the_same_path_inside_and_guests_have_none_outside(request_to_docker: dict[str, Any]) -> None:
    binds = [one.split(":") for one in request_to_docker["host_config"]["Binds"]]
    assert {one[0] for one in binds if len(one) > 1} == {
        "/etc/distgate",
        *(f"/var/lib/distgate/{name}" for name in ("images", "trees", "artifacts", "results")),
    }
    assert all(one[0] == one[1] for one in binds if len(one) > 1)
    assert "/var/lib/distgate/guests" in request_to_docker["volumes"]


def test_the_environment_of_a_run_names_settings_that_exist(job: DockerWorkerJobConfiguration) -> None:
    known = {f"DISTGATE_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in job.env if name.startswith("DISTGATE_")} <= known


def test_what_a_deployment_sets_is_added_to_the_environment_of_a_container(
    made: dict[str, dict[str, Any]], job: DockerWorkerJobConfiguration
) -> None:
    of_staging = DockerWorkerJobConfiguration.from_template_and_values(made["docker.json"], JOB, client=nobody())
    assert asyncio.run(of_staging).env == {**job.env, "DISTGATE_SITE": "staging"}


def test_no_template_holds_a_password(made: dict[str, dict[str, Any]]) -> None:
    for template in made.values():
        defaults = [one.get("default") for one in template["variables"]["properties"].values()]
        assert "://" not in json.dumps(defaults)
