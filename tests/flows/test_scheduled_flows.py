"""What a site does by the clock: each flow once on a real Prefect server, with real repositories and a ledger."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.doctor.health import health_file, read_health
from distgate.ledger.ledger import Ledger
from distgate.process import run
from distgate.settings import Settings
from lab.dist_git.repository import create_repository, push, repository_path
from lab.servers import prefect_server as lab_prefect
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import Broker
from lab.world import PROJECT

HERE = Path(__file__).parent
#: Of a run that nobody knows any more.
OLD_RESULT = f"{uuid.uuid4()}-Build package"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 packages, of which a few have tests; a ledger with a fresh verdict on one of these."""
    room = tmp_path_factory.mktemp("site")
    first = create_repository(room, "package-000")
    push(first, "rawhide", {"tests/tests.yml": "- hosts: all\n  tags: [classic]\n", "x.spec": ""}, "Tests")
    plain = create_repository(room, "package-001")
    push(plain, "rawhide", {"x.spec": "Name: x\n"}, "Plain")
    for number in range(2, 200):
        shutil.copytree(first if number % 20 == 2 else plain, repository_path(room, f"package-{number:03}"))
    (room / "names").write_text("# all\n" + "".join(f"package-{number:03}\n" for number in range(200)))
    ledger = Ledger(f"sqlite:///{room}/ledger.db")
    rev = run(["git", "-C", first, "rev-parse", "rawhide"], timeout=30).output.strip()
    tested = Change(namespace="rpms", repo="package-002", rev=rev, branch="rawhide", username="jane")
    ledger.claim(tested, str(uuid.uuid4()), "http://x")
    Announcer(ledger, Settings()).close(ledger.runs_of(tested.key)[0].run_id, "SUCCESS")
    (room / "artifacts").mkdir()
    (room / "results").mkdir()
    for name, days in ((OLD_RESULT, 90), (f"{uuid.uuid4()}-Build package", 1)):
        (room / "results" / name).write_text("result")
        os.utime(room / "results" / name, (time.time() - days * 86400,) * 2)
    (room / "images").mkdir()
    return room


@pytest.fixture(scope="module")
def said(room: Path, prefect_server: PrefectServer, broker: Broker) -> dict[str, Any]:
    """The states in which the flows ended."""
    lab_prefect.ensure_pool(prefect_server)
    lab_prefect.deploy(prefect_server, PROJECT)
    own = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{room}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(room / "artifacts"),
        "DISTGATE_IMAGE_STORE": str(room / "images"),
        "PREFECT_LOCAL_STORAGE_PATH": str(room / "results"),
        "DISTGATE_WORKER_STATE": str(room / "workers"),
        "DISTGATE_WORKER_CHECKS": '["disk"]',
        "DISTGATE_FREE_DISK": "1M",
        "DISTGATE_AMQP_URL": broker.url,
        "DISTGATE_QUEUE": "scheduled.flows",
        "PYTHONPATH": str(PROJECT),
    }
    address = f"{room.as_uri()}/repositories/{{namespace}}/{{repo}}.git"
    argv = [sys.executable, HERE / "scheduled_flows.py", room, address, room / "names"]
    run(argv, timeout=400, env=prefect_server.environment | own)
    found: dict[str, Any] = json.loads((room / "said.json").read_text())
    return found


def test_a_dry_run_over_200_packages_tells_of_each_and_starts_none(said: dict[str, Any]) -> None:
    assert said["retest"]["message"].startswith("10 of 200 packages are tested again, from ")
    assert said["retest"]["message"].endswith(" UTC (dry run: none is started)")
    rows = said["retest"]["rows"]
    assert len(rows) == 200
    picked = [row for row in rows if row["starts (UTC)"]]
    assert {row["package"] for row in picked} == {f"package-{number:03}" for number in (0, *range(22, 200, 20))}
    assert {row["why"] for row in picked} == {"never tested"}
    starts = [row["starts (UTC)"] for row in picked]
    assert starts == sorted(set(starts))
    whys = {row["package"]: row["why"] for row in rows if row not in picked}
    assert whys.pop("package-002").startswith("SUCCESS on this commit")
    assert set(whys.values()) == {"it has no tests"}


def test_a_clean_up_works_in_a_site_without_trees(said: dict[str, Any]) -> None:
    assert said["clean-up dry"]["state"] == "Completed"
    assert said["clean-up dry"]["message"].endswith("would be freed")
    assert said["clean-up"] == {"state": "Completed", "message": "1 lots of results: 6 B of disk were freed"}


def test_a_clean_up_takes_the_results_of_old_runs_and_leaves_those_of_young_ones(
    said: dict[str, Any], room: Path
) -> None:
    assert "1 lots of results" in said["clean-up dry"]["message"]
    left = [path.name for path in (room / "results").iterdir()]
    assert OLD_RESULT not in left
    assert any(name.endswith("-Build package") for name in left)


def test_base_images_of_an_empty_store_are_none(said: dict[str, Any]) -> None:
    assert said["base-images"] == {"state": "Completed", "message": "0 of 0 base images are current"}


def test_a_health_run_lets_the_worker_of_its_host_take_runs(said: dict[str, Any], room: Path) -> None:
    assert said["worker-health"]["state"] == "Completed"
    health = read_health(health_file(room / "workers", "tiny"))
    assert health
    assert health.fit


def test_a_look_of_the_reconciler_finds_nothing_to_mend(said: dict[str, Any]) -> None:
    assert said["reconciler"] == {"state": "Completed", "message": "nothing was to be mended"}
