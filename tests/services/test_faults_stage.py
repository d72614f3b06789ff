"""A ledger that cannot be written while a run is under way: the run ends, the operator reads why, the end is said."""

import sys
from pathlib import Path

import pytest
from fault_site import FaultSite

from distgate.prefect_api import PrefectApi
from distgate.process import run
from distgate.settings import Settings
from services.reconciler import Reconciler

pytestmark = pytest.mark.lab
HERE = Path(__file__).parent


def test_a_stage_ends_though_the_ledger_is_full_and_its_end_is_said_when_there_is_room_again(
    full_disk_site: FaultSite,
) -> None:
    site = full_disk_site
    log = site.scratch / "flow.log"
    known = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{site.directory}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(site.scratch),
        "DISTGATE_RETRY_DELAYS": "[0, 0]",
        "PYTHONPATH": str(HERE.parent / "fixtures"),
    }
    ended = run(
        [sys.executable, HERE / "full_disk_pipeline.py", site.directory],
        timeout=300,
        env=site.gate.prefect.environment | known,
        log_to=log,
        allowed=(0, 1),
    )
    assert ended.returncode == 1
    assert "Build package" in log.read_text()
    assert "stage package is complete, and its message could not be written" in log.read_text()
    assert "its last message could not be written" in log.read_text()
    assert "is its disk full" in log.read_text()

    (site.directory / "filler").unlink()
    with PrefectApi(site.gate.prefect.api_url) as prefect:
        reconciler = Reconciler(site.ledger, prefect, Settings(run_lease=0.01))
        for _ in range(2):  # the second look finds nothing to mend
            reconciler.reconcile_once()
    said = [f"{one.topic.split('allpackages.')[1]} {one.body['status']}" for one in site.ledger.unsent()]
    assert said == [
        "package.queued SUCCESS",
        "package.running SUCCESS",
        "package.complete FAILURE",
        "complete FAILURE",
    ]
