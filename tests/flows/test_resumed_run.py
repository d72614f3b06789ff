"""A run that starts in the middle: the results of the run before it are taken, also on another worker."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from distgate.ledger.ledger import Ledger
from distgate.process import Completed, run
from lab.servers.prefect_server import PrefectServer
from lab.world import PROJECT

HERE = Path(__file__).parent


def run_it(server: PrefectServer, room: Path, worker: str, start_from: str) -> Completed:
    own = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{room}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(room / "artifacts"),
        "DISTGATE_RETRY_DELAYS": "[]",
        "PREFECT_HOME": str(room / worker),
        "PREFECT_LOCAL_STORAGE_PATH": str(room / "results"),
        "PYTHONPATH": str(PROJECT),
    }
    argv = [sys.executable, HERE / "resumed_pipeline.py", room, start_from]
    return run(argv, timeout=300, env=server.environment | own, allowed=(0, 1))


def test_a_run_resumes_with_the_results_of_the_last_one_on_another_worker(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    assert run_it(prefect_server, tmp_path, "worker-1", "").returncode == 1
    (tmp_path / "broken").unlink()
    second = run_it(prefect_server, tmp_path, "worker-2", "image")
    assert second.returncode == 0, second.output

    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    letters = ledger.unsent()
    first_id, second_id = dict.fromkeys(one.body["build_id"] for one in letters)
    assert (tmp_path / "builds").read_text() == "x"
    assert (tmp_path / "composed").read_text() == f"built by {first_id}"
    told = [one for one in letters if one.body["build_id"] == second_id]
    said = [one.topic.partition("allpackages.")[2] for one in told]
    assert said == [
        *("package.queued", "package.running", "package.complete"),
        *("image.queued", "image.running", "image.complete", "complete"),
    ]
    assert {one.body["status"] for one in told} == {"SUCCESS"}
    assert {one.body["nvr"] for one in told if "image" in one.topic} == {"tiny-1-1.fc41"}

    # What must not be: a start from results that nobody has, or from a stage that is none.
    shutil.rmtree(tmp_path / "artifacts")
    gone = run_it(prefect_server, tmp_path, "worker-1", "image")
    assert gone.returncode == 1
    assert f"the artifacts of run {second_id} are not here" in gone.output
    unknown = run_it(prefect_server, tmp_path, "worker-1", "boot")
    assert "there is no stage 'boot'" in unknown.output
    assert len(ledger.unsent()) == len(letters)
