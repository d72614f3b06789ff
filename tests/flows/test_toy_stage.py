"""A stage is added in three places: the row of the stage table, its task, a line in the flow. All else follows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from distgate.process import run
from lab.run_page import latest_artifact
from lab.servers.prefect_server import PrefectServer

HERE = Path(__file__).parent
TOY = ["image.test.toy.queued SUCCESS", "image.test.toy.running SUCCESS", "image.test.toy.complete UNSTABLE"]


def run_toy(server: PrefectServer, scratch: Path, start_from: str = "") -> dict[str, Any]:
    own = {"DISTGATE_LEDGER_URL": f"sqlite:///{scratch}/ledger.db", "DISTGATE_ARTIFACTS_DIR": str(scratch)}
    argv: list[str | Path] = [sys.executable, HERE / "toy_stage.py", scratch, start_from]
    run(argv, timeout=300, env=server.environment | own, cwd=HERE.parents[1])
    answer: dict[str, Any] = json.loads((scratch / "answer.json").read_text())
    return answer


def test_a_stage_that_is_added_is_told_shown_reported_audited_and_resumed(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    answer = run_toy(prefect_server, tmp_path)
    assert answer["said"][-4:] == [*TOY, "complete UNSTABLE"]
    assert "distgate.koji-build.allpackages.toy FAILED" in answer["results"]
    assert answer["problems"] == []
    page = latest_artifact(prefect_server.api_url, answer["run"], "summary")
    assert "**The toy does not roll**" in page
    assert "**Blame: package.**" in page
    assert "**Logs of `image.test.toy`:** toy/toy.log" in page
    assert "toy test: the toy does not roll" in page

    again = run_toy(prefect_server, tmp_path, start_from="image.test.toy")
    assert again["said"][-4:] == [*TOY, "complete UNSTABLE"]
    assert len(again["said"]) == 2 * len(answer["said"])
