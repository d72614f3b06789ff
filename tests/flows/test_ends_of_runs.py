"""Every way in which a run of the whole pipeline ends: its name in Prefect's list, its last message, its page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ending_places import change_of

from benchmarks.overhead import write_packages
from distgate.ledger.ledger import Ledger
from distgate.prefect_api import PrefectApi
from distgate.process import run
from lab.run_page import latest_artifact
from lab.servers.prefect_server import PrefectServer
from lab.world import PROJECT

HERE = Path(__file__).parent

#: The package, the state's type and name, the last stage and the status of its last message and the run's, who is to
#: blame, and what the page says.
ENDS: list[tuple[str, str, str, str, str, str]] = [
    ("success", "COMPLETED", "Completed", "package.test.functional SUCCESS", "", "its tests passed: 1 in 1 suite"),
    ("unstable", "COMPLETED", "Unstable", "package.test.functional UNSTABLE", "package", "1 is not 2\nFAIL one"),
    ("package", "FAILED", "Package failed", "package FAILURE", "package", "Evidence:** a.c:1: error: no such type"),
    ("tests", "FAILED", "Tests broken", "package.test.functional FAILURE", "tests", "could not parse the playbook"),
    ("infrastructure", "FAILED", "Infrastructure failed", "package FAILURE", "infrastructure", "The hub is away"),
    ("late", "FAILED", "Infrastructure failed", "package FAILURE", "infrastructure", "Koji task 6 took too long"),
    ("configuration", "FAILED", "Misconfigured", "package FAILURE", "configuration", "knows no target f41"),
    ("cancelled", "FAILED", "Aborted", "package ABORTED", "cancelled", "Somebody cancelled Koji task 1"),
    ("bug", "FAILED", "Failed", "package FAILURE", "bug", "ZeroDivisionError: division by zero"),
]


@pytest.mark.lab
def test_each_end_of_the_whole_pipeline_is_told_apart_in_the_list_on_the_bus_and_on_the_page(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    write_packages(tmp_path)
    url = f"sqlite:///{tmp_path}/ledger.db"
    own = {
        "DISTGATE_LEDGER_URL": url,
        "DISTGATE_ARTIFACTS_DIR": str(tmp_path / "artifacts"),
        "DISTGATE_ARTIFACTS_URL": "http://artifacts.example",
        "DISTGATE_RETRY_DELAYS": "[]",
        "DISTGATE_SITE": "ending",
        "DISTGATE_STAND_INS": '["benchmarks.idle.places", "ending_places"]',
        "PYTHONPATH": f"{PROJECT}:{HERE}",
    }
    argv = [sys.executable, "-c", "import ending_places; ending_places.main()", str(tmp_path)]
    run(argv, timeout=400, env=prefect_server.environment | own, log_to=tmp_path / "flow.log")
    ledger = Ledger(url)
    seen: list[tuple[str, ...]] = []
    with PrefectApi(prefect_server.api_url) as prefect:
        for word, *_, words in ENDS:
            (held,) = ledger.runs_of(change_of(word).key)
            (one,) = prefect.flow_runs(ids=[held.run_id])
            *_, stage, last = ledger.messages_of(held.run_id)
            said = f"{stage.topic.partition('allpackages.')[2].removesuffix('.complete')} {stage.body['status']}"
            assert last.topic.endswith("allpackages.complete")
            assert last.body["status"] == stage.body["status"]
            seen.append((word, one.state_type, one.state_name, said, held.facts.blame, words))
            assert words in latest_artifact(prefect_server.api_url, held.run_id, "summary")
        again = [one for one in prefect.flow_runs() if one.name == change_of("success").title]
    assert seen == ENDS
    assert sorted(one.state_name for one in again) == ["Completed", "Duplicate"]
