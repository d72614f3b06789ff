"""``./run lab env``: a shell that works in the lab."""

from __future__ import annotations

import json
import sys

import pytest

from distgate.process import run
from lab.world import World

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.mark.lab
def test_a_shell_is_given_what_processes_of_the_lab_have(lab: World) -> None:
    script = f'eval "$("$0" -m distgate.cli lab env --state "$1")" && exec "$0" -c "{SHOW}"'
    seen = json.loads(run(["sh", "-c", script, sys.executable, lab.state], timeout=60).output)
    assert {name: seen[name] for name in lab.environment if name != "PATH"} == {
        name: value for name, value in lab.environment.items() if name != "PATH"
    }
    assert seen["PATH"].startswith(lab.environment["PATH"].partition(":")[0])
