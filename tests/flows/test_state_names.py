"""How a run stands in Prefect's list: its state's name says whose matter it is; its last message says the same."""

import json
import sys
from pathlib import Path

import pytest

from distgate.drivers.prefect_api import PrefectApi
from distgate.ledger import Ledger
from distgate.process import run
from lab.prefect_server import PrefectServer

HERE = Path(__file__).parent

CASES: list[tuple[str, str, str, str]] = [
    ("unstable", "COMPLETED", "Unstable", "SUCCESS"),  # the stage that found it says UNSTABLE, and none ran here
    ("package", "FAILED", "Package failed", "FAILURE"),
    ("tests", "FAILED", "Tests broken", "FAILURE"),
    ("infrastructure", "FAILED", "Infrastructure failed", "FAILURE"),
    ("gave up", "FAILED", "Infrastructure failed", "FAILURE"),
    ("configuration", "FAILED", "Misconfigured", "FAILURE"),
    ("cancelled", "FAILED", "Aborted", "ABORTED"),
    ("bug", "FAILED", "Failed", "FAILURE"),
]


@pytest.mark.lab
def test_a_run_is_named_by_whom_it_concerns(prefect_server: PrefectServer, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    own = {"DISTGATE_LEDGER_URL": url, "DISTGATE_ARTIFACTS_DIR": str(tmp_path)}
    argv = [sys.executable, str(HERE / "named_states.py"), str(tmp_path / "runs.json")]
    run(argv, timeout=400, env=prefect_server.environment | own, log_to=tmp_path / "flow.log")
    ids, ledger = json.loads((tmp_path / "runs.json").read_text()), Ledger(url)
    found = []
    with PrefectApi(prefect_server.api_url) as prefect:
        for word, *_ in CASES:
            one = prefect.flow_run(ids[word])
            assert one is not None
            said = ledger.letters_of(ids[word])[-1]
            assert said.topic.endswith(".allpackages.complete")
            found.append((word, one.state_type, one.state_name, said.body["status"]))
    assert found == CASES
