"""What a stage does is on the run's page while it does it: the end of the log that grows, then what it came to."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distgate.process import run
from lab.run_page import latest_artifact
from lab.servers.prefect_server import PrefectServer

HERE = Path(__file__).parent


@pytest.mark.lab
def test_a_console_is_on_the_page_while_it_grows_and_a_short_stage_costs_no_request(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    argv = [sys.executable, HERE / "shown_pipeline.py", tmp_path]
    run(argv, timeout=300, env=prefect_server.environment, cwd=HERE.parents[1])
    run_id = (tmp_path / "run-id").read_text()
    shown = {key: latest_artifact(prefect_server.api_url, run_id, key).strip("`\n") for key in ("slow", "quick")}
    assert shown == {"slow": "it began\nit ended", "quick": ""}
