"""A failed run done again elsewhere: from a copy of its directory, where no service of the lab can be reached."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commits import push

from distgate.files import RUN_RECORD
from distgate.guests.monitor import end_held
from distgate.guests.registry import GuestRegistry
from distgate.guests.watchdog import start_time
from distgate.runs.record import RunRecord, load
from lab.world import World

pytestmark = [pytest.mark.lab, pytest.mark.guest]

#: The same machine without its network: only a loopback of its own, on which guests are reached.
OFFLINE = ("bwrap", "--dev-bind", "/", "/", "--unshare-net", "--")


@pytest.fixture(scope="module")
def unstable(lab: World) -> Path:
    """The directory of a run whose package tests failed: one that another test made, or else a new one."""
    for path in sorted(lab.artifacts_dir.glob(f"*/{RUN_RECORD}")):
        verdict = load(path).verdict
        if verdict and verdict.status == "UNSTABLE":
            return path.parent
    commit = push(lab, "tests")
    commit.until("complete")
    commit.ended()
    return commit.room()


def distgate(guests: Path, cwd: Path, *words: str, prefix: tuple[str, ...] = ()) -> tuple[int, str, str]:
    said = subprocess.run(
        [*prefix, sys.executable, "-m", "distgate.cli", *words],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "DISTGATE_GUESTS_DIR": str(guests)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return said.returncode, said.stdout, said.stderr


def test_an_unstable_run_has_the_same_verdict_elsewhere_and_its_guest_can_be_kept(
    unstable: Path, tmp_path: Path
) -> None:
    copy, guests, into = tmp_path / "copy", tmp_path / "guests", tmp_path / "again"
    shutil.copytree(unstable, copy, symlinks=True, ignore=shutil.ignore_patterns("*.qcow2"))
    words = ("reproduce", str(copy), "--suite", "tests", "--keep", "--into", str(into), "--json")
    try:
        status, out, said = distgate(guests, tmp_path, *words, prefix=OFFLINE)
        assert status == 1, said
        check(json.loads(out), load(copy / RUN_RECORD), into)
        (kept,) = GuestRegistry(guests).all()
        assert json.loads(out)["guest"]["name"] == kept.name
        assert kept.name in said
        assert distgate(guests, tmp_path, "guests", "down", "--all")[0] == 0
        assert not start_time(kept.qemu_pid)
    finally:
        for left in GuestRegistry(guests).all():
            end_held(guests, left)


def check(found: dict[str, Any], recorded: RunRecord, into: Path) -> None:
    assert (found["recorded"]["status"], found["here"]["status"], found["same"]) == ("UNSTABLE", "UNSTABLE", True)
    assert found["run"] == recorded.run_id
    assert found["differences"] == []
    (suite,) = found["suites"]
    assert (suite["recorded"]["verdict"], suite["here"]["verdict"]) == ("FAIL", "FAIL")
    results = {test["name"]: test["result"] for test in suite["here"]["tests"]}
    assert results["unix-becomes-dos"] == "fail"
    assert list(results.values()).count("pass") == len(results) - 1
    assert (into / "tests/tests/artifacts/results.yml").is_file()


def test_a_run_that_was_not_built_says_how_to_build_it_by_hand(lab: World, tmp_path: Path) -> None:
    found = [path for path in lab.artifacts_dir.glob(f"*/{RUN_RECORD}") if not_built(load(path))]
    if not found:
        commit = push(lab, "build")
        commit.until("complete")
        commit.ended()
        found = [commit.room() / RUN_RECORD]
    record = load(found[0])
    status, said, _ = distgate(tmp_path, tmp_path, "reproduce", str(found[0]))
    assert status == 1
    assert record.build is not None
    assert f"Koji task {record.build.task_id}" in said
    assert f"git -C dos2unix checkout {record.change.rev}" in said
    assert "build.x86_64.log" in said


def not_built(record: RunRecord) -> bool:
    ended = record.verdict is not None and record.verdict.status == "FAILURE"
    return ended and record.build is not None and not record.build.rpms and record.change.repo == "dos2unix"
