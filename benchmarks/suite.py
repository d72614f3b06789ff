"""What a trivial suite costs beyond its own work: distgate's runner beside plain ansible-playbook on one guest."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.cost import measured
from distgate.errors import InfrastructureError
from distgate.guests.base import Guest
from distgate.guests.host import LibvirtGuests
from distgate.process import run
from distgate.runners.ansible import AnsibleSuites, inventory_of
from distgate.settings import settings
from distgate.testing.verdict import judge
from lab.images.base_image import ensure_base

ROUNDS = 7
SUITE = """\
- hosts: localhost
  gather_facts: false
  tags: [classic]
  tasks:
  - name: Test that the guest counts
    raw: |
      rm -rf /tmp/artifacts; mkdir /tmp/artifacts
      test $((1 + 1)) = 2 && result=pass || result=fail
      printf 'results:\\n- {test: count, result: %s}\\n' $result > /tmp/artifacts/results.yml
  - name: Fetch the results
    fetch: {src: /tmp/artifacts/results.yml, dest: "{{ artifacts }}/", flat: true}
"""


def measure(progress: Callable[[str], None]) -> dict[str, Any]:
    """ROUNDS of the suite both ways, in turn, on one guest whose boot is not counted."""
    base = ensure_base(settings().cache, progress)
    with tempfile.TemporaryDirectory(prefix="distgate-bench-") as scratch:
        directory = Path(scratch)
        (directory / "tests").mkdir()
        (directory / "tests/tests.yml").write_text(SUITE)
        with LibvirtGuests(directory / "state").boot(base.path, base.ssh_key, directory / "guest", 120) as guest:
            guest.run("true", 120)
            suite, plain = [], []
            for number in range(ROUNDS):
                suite.append(_seconds(lambda n=number: _by_us(directory, guest, n)))  # type: ignore[misc]
                plain.append(_seconds(lambda n=number: _by_ansible(directory, guest, n)))  # type: ignore[misc]
                progress(f"round {number + 1}: distgate {suite[-1]:.1f} s, ansible-playbook {plain[-1]:.1f} s")
    return _summary(suite, plain)


def _by_us(directory: Path, guest: Guest, number: int) -> None:
    artifacts = directory / f"ours-{number}"
    verdict = judge(
        AnsibleSuites().run(directory / "tests/tests.yml", guest, artifacts, {"git_branch": "rawhide"}, 600)
    )
    if verdict.verdict != "PASS":
        raise InfrastructureError(f"the suite did not pass: {verdict.evidence}")


def _by_ansible(directory: Path, guest: Guest, number: int) -> None:
    artifacts = directory / f"theirs-{number}"
    artifacts.mkdir()
    inventory = directory / "inventory.yml"
    inventory.write_text(yaml.safe_dump(inventory_of(guest)))
    argv = [
        "ansible-playbook",
        "-i",
        str(inventory),
        "--tags",
        "classic",
        "-e",
        f"artifacts={artifacts}",
        "tests.yml",
    ]
    run(argv, timeout=600, cwd=directory / "tests", env=_plain_environment(artifacts), error=InfrastructureError)
    if not (artifacts / "results.yml").is_file():
        raise InfrastructureError("plain ansible-playbook left no results")


def _plain_environment(home: Path) -> Mapping[str, str]:
    # A home of its own: in a shared one ssh would go on with the connection that the round before left open.
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    # Pipelining is what anyone would switch on first; the runner has it, too.
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C.UTF-8", "ANSIBLE_PIPELINING": "True"}


def _seconds(work: Callable[[], None]) -> float:
    with measured() as cost:
        work()
    return cost.wall


def _summary(suite_seconds: list[float], plain_seconds: list[float]) -> dict[str, Any]:
    suite, plain = median(suite_seconds), median(plain_seconds)
    return {
        "benchmark": "suite",
        "rounds": {
            "suite": [round(seconds, 2) for seconds in suite_seconds],
            "ansible_playbook": [round(seconds, 2) for seconds in plain_seconds],
        },
        "seconds": {"suite": round(suite, 2), "ansible_playbook": round(plain, 2)},
        "suite_over_ansible": round(suite / plain, 2),
    }
