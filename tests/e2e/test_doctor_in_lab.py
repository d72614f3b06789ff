"""The doctor in a lab that is up: the same settings, servers and store that runs work with."""

from __future__ import annotations

import json
import sys

from distgate.process import run
from lab.world import World


def test_a_worker_of_the_lab_is_fit_and_says_so(lab: World) -> None:
    own = "from distgate.cli.main import main; main(['doctor', '--json', '--free', '100M'])"
    told = run([sys.executable, "-c", own], timeout=300, env=lab.environment, allowed=range(256), split_errors=True)
    said = json.loads(told.output)
    assert [one for one in said["checks"] if not one["ok"]] == []
    assert said["ok"]
    assert told.returncode == 0


def test_beside_a_lab_the_lab_is_what_is_asked(lab: World) -> None:
    own = "from distgate.cli.main import main; main(['doctor', '--free', '100M'])"
    env = {"DISTGATE_LAB_STATE": str(lab.state), "PATH": lab.environment["PATH"]}
    told = run([sys.executable, "-c", own], timeout=300, env=env, allowed=range(256), split_errors=True)
    assert told.returncode == 0, told.output
    assert f"of the lab in {lab.state}" in told.errors
    assert "all 15 checks passed" in told.errors
