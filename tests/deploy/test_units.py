"""The files of deploy/ that no program of ours reads: systemd's units, compose.yaml, the environment files."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.settings.models.root import Settings as PrefectSettings

from distgate.process import run
from distgate.settings import Settings

OWN = {f"DISTGATE_{name.upper()}" for name in Settings.model_fields}
#: Read by the units and by compose.yaml themselves.
OF_DEPLOY = {"DISTGATE_WORKER_RUNS", "DISTGATE_WORKER_TYPE", "DISTGATE_PASSWORD", "DISTGATE_IMAGE"}
#: Of packages that are no part of Prefect's settings.
OF_REDIS = {"PREFECT_REDIS_MESSAGING_URL"}


@pytest.fixture
def units(deploy_directory: Path, tmp_path: Path) -> list[Path]:
    """The units as they would be on a host where distgate stands where this Python environment is."""
    made = []
    for unit in (deploy_directory / "systemd").iterdir():
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/opt/distgate/.venv", str(Path(sys.prefix))))
        made.append(copy)
    return made


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_has_nothing_to_say_about_the_units(units: list[Path]) -> None:
    assert run(["systemd-analyze", "verify", "--man=no", *units], timeout=60).output == ""


def parsed(unit: Path) -> dict[str, dict[str, list[str]]]:
    """Sections and their words; a word that is said again is in the list again."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section.setdefault(name, []).append(value)
    return found


def test_every_service_comes_back_and_reads_the_settings_of_the_site(deploy_directory: Path) -> None:
    for unit in (deploy_directory / "systemd").glob("*.service"):
        service = parsed(unit)["Service"]
        assert service["Restart"] == ["always"], unit.name
        assert "/etc/distgate/distgate.env" in service["EnvironmentFile"], unit.name
        assert service["User"] == ["distgate"], unit.name


def test_each_program_that_a_unit_starts_exists(deploy_directory: Path) -> None:
    for unit in (deploy_directory / "systemd").glob("*.service"):
        program, *words = parsed(unit)["Service"]["ExecStart"][0].split()
        assert (Path(sys.prefix) / "bin" / Path(program).name).exists(), unit.name
        if "-m" in words:
            assert importlib.util.find_spec(words[words.index("-m") + 1]), unit.name


#: Each covers a part of /proc, keeps away a device, a namespace or a set-user-ID program that runs are made of.
BREAKS_RUNS = (
    *("ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "ProcSubset", "PrivateDevices"),
    *("RestrictNamespaces", "NoNewPrivileges", "RestrictSUIDSGID", "PrivateUsers", "MemoryDenyWriteExecute"),
    *("SystemCallFilter", "CapabilityBoundingSet"),
)


def test_a_worker_keeps_what_sandboxes_and_guests_need(deploy_directory: Path) -> None:
    service = parsed(deploy_directory / "systemd" / "distgate-worker@.service")["Service"]
    assert [word for word in BREAKS_RUNS if word in service] == []
    assert service["DeviceAllow"] == ["/dev/kvm rw", "/dev/fuse rw"]


def test_a_stop_of_a_worker_tells_the_worker_alone_and_waits_for_the_longest_run(deploy_directory: Path) -> None:
    service = parsed(deploy_directory / "systemd" / "distgate-worker@.service")["Service"]
    assert service["KillMode"] == ["mixed"]
    assert "KillSignal" not in service
    (hours,) = (int(word.removesuffix("h")) for word in service["TimeoutStopSec"])
    assert hours * 3600 >= Settings().tests_timeout


def variables(text: str) -> set[str]:
    """Every name of a setting of ours or of Prefect's in a text."""
    return set(re.findall(r"\b(?:DISTGATE|PREFECT)_[A-Z_]+[A-Z]\b", text))


def known_to_prefect() -> set[str]:
    """The names of Prefect's settings, old ones and new ones."""
    from prefect.settings.legacy import _get_valid_setting_names

    return set(_get_valid_setting_names(PrefectSettings))


@pytest.mark.parametrize("name", ["distgate.env.example", "prefect-server.env.example", "compose.yaml"])
def test_a_file_names_only_settings_that_exist(name: str, deploy_directory: Path) -> None:
    said = variables((deploy_directory / name).read_text())
    assert said - OWN - OF_DEPLOY - OF_REDIS - known_to_prefect() == set()


@pytest.mark.parametrize("name", ["prefect-server.env.example", "compose.yaml"])
def test_prefect_forgets_runs_long_after_they_can_be_resumed(
    name: str, deploy_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (deploy_directory / name).read_text()
    for variable, value in re.findall(r'(PREFECT_SERVER_SERVICES_DB_VACUUM\w+)(?:=|: )"?([\w,]+)', text):
        monkeypatch.setenv(variable, value)
    vacuum = PrefectSettings().server.services.db_vacuum
    assert vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert vacuum.retention_period.days > Settings().keep_days


@pytest.mark.parametrize("name", ["distgate.env.example", "prefect-server.env.example"])
def test_an_environment_file_is_plain_for_systemd_and_for_a_shell_alike(name: str, deploy_directory: Path) -> None:
    for line in (deploy_directory / name).read_text().splitlines():
        assert not line or line.startswith("#") or re.fullmatch(r"[A-Z_]+=[^'\"\\$\s]*", line), line


@pytest.fixture(scope="module")
def composition(deploy_directory: Path) -> dict[str, Any]:
    known: dict[str, Any] = yaml.safe_load((deploy_directory / "compose.yaml").read_text())
    return known


def test_the_composition_has_every_process_of_the_units(composition: dict[str, Any], deploy_directory: Path) -> None:
    units = {
        path.name.removeprefix("distgate-").split(".")[0].strip("@")
        for path in (deploy_directory / "systemd").glob("*.service")
    }
    assert units <= set(composition["services"])


def test_of_the_composition_only_the_worker_has_devices_and_capabilities(composition: dict[str, Any]) -> None:
    ours = {name: one for name, one in composition["services"].items() if "distgate:latest" in one["image"]}
    assert all(one["cap_drop"] == ["ALL"] and not one.get("privileged") for one in ours.values())
    assert {name for name, one in ours.items() if "cap_add" in one or "devices" in one} == {"worker"}


def test_the_worker_of_the_composition_has_what_the_job_template_gives_a_container(
    composition: dict[str, Any], deploy_directory: Path
) -> None:
    template = json.loads((deploy_directory / "pools/docker.json").read_text())["variables"]["properties"]
    worker, created = composition["services"]["worker"], template["container_create_kwargs"]["default"]
    assert {name: worker[name] for name in ("cap_drop", "cap_add", "security_opt", "devices", "init")} == {
        name: created[name] for name in ("cap_drop", "cap_add", "security_opt", "devices", "init")
    }
    shared = {
        one.split(":")[1] for one in template["volumes"]["default"] if one.startswith("/var/lib") and ":" in one
    }
    assert shared == {one.split(":")[1] for one in worker["volumes"] if ":/var/lib" in one}
    named = {one.split(":")[0] for one in worker["volumes"] if ":/var/lib" in one}
    assert named <= set(composition["volumes"])


#: What a service reads of the directories that runs write to.
READS = {"metrics": "/var/lib/distgate/images", "reporter": "/var/lib/distgate/artifacts"}


@pytest.mark.parametrize(("service", "directory"), READS.items())
def test_what_a_service_reads_of_the_runs_is_mounted_for_it(
    service: str, directory: str, composition: dict[str, Any]
) -> None:
    name = Path(directory).name
    assert f"{name}:{directory}:ro" in composition["services"][service]["volumes"]


@pytest.mark.parametrize("given", [{}, {"DISTGATE_SITE": "staging"}])
def test_the_image_s_entrypoint_reads_the_site_s_settings_and_what_was_given_goes_before(
    given: dict[str, str], deploy_directory: Path
) -> None:
    settings = "# a comment\nDISTGATE_SITE=fedora\nDISTGATE_LEDGER_URL=postgresql://a:b=c@d/e?f=g h\n9BAD=1\nA B=2\n"
    # As another user than root it only reads, and is then the command. What is set here once misled it.
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] if os.geteuid() == 0 else []
    words = ["sh", "-c", (deploy_directory / "container/entrypoint").read_text(), "entrypoint", "env"]
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp") as file:  # pytest's directories are for one user
        file.write(settings)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        own = {"DISTGATE_ENV_FILE": file.name, "DISTGATE_ENVIRONMENT": "staging", **given}
        said = run([*other, *words], timeout=30, env=own).output.splitlines()
    assert f"DISTGATE_SITE={given.get('DISTGATE_SITE', 'fedora')}" in said
    assert "DISTGATE_LEDGER_URL=postgresql://a:b=c@d/e?f=g h" in said
    assert not [line for line in said if line.startswith(("9BAD", "A B"))]


def test_what_a_process_waits_for_is_in_the_composition(composition: dict[str, Any]) -> None:
    services = composition["services"]
    for name, one in services.items():
        for needed, how in one.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[needed], (name, needed)


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_compose_accepts_the_file(deploy_directory: Path, tmp_path: Path) -> None:
    # The first generation, which Debian 12 has, knows everything in it but the project's name.
    text = (deploy_directory / "compose.yaml").read_text().replace("name: distgate\n", "", 1)
    (tmp_path / "compose.yaml").write_text(text)
    words = ["docker-compose", "--file", tmp_path / "compose.yaml", "config", "--quiet"]
    run(words, timeout=60, env={"DISTGATE_PASSWORD": "word"})
