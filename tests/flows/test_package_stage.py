"""The package stage of both pipelines: one stage, two ways to say what Koji builds; on a real Prefect server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import koji
import pytest
from koji_world import KojiWorld, koji_world, spec

from distgate.files import sha256_of
from distgate.ledger.ledger import Ledger
from distgate.process import run
from distgate.runs.record import load
from lab.servers.prefect_server import PrefectServer

HERE = Path(__file__).parent
TESTED = spec().replace("%files\n", "%check\necho '== 3 passed in 0.50s =='\n{end}\n%files\n")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("stage"), cache) as running:
        yield running


@dataclass(frozen=True)
class Ran:
    """One run of the stage: its output, its messages by their topic's end, and its run record."""

    output: str
    letters: dict[str, dict[str, str]]
    room: Path

    @property
    def record(self) -> Any:
        return load(self.room / "run.json")

    @property
    def built(self) -> list[str]:
        return list(json.loads(next(line for line in self.output.splitlines() if line.startswith("["))))


def ran(server: PrefectServer, world: KojiWorld, rev: str, pipeline: str, scratch: Path, *koji_task: str) -> Ran:
    environment = {
        "DISTGATE_LEDGER_URL": f"sqlite:///{scratch}/ledger.db",
        "DISTGATE_ARTIFACTS_DIR": str(scratch / "artifacts"),
        "DISTGATE_ARTIFACTS_URL": "http://artifacts.test",
        "DISTGATE_RETRY_DELAYS": "[0]",
    }
    ended = run(
        [sys.executable, HERE / "package_stage.py", rev, pipeline, world.dist_git.url, world.hub.url, *koji_task],
        timeout=300,
        env=server.environment | environment,
        cwd=HERE.parents[1],
        allowed=(0, 1),
    )
    letters = Ledger(f"sqlite:///{scratch}/ledger.db").unsent()
    (room,) = (scratch / "artifacts").iterdir()
    bodies = {one.topic.partition(".pipeline.")[2].removeprefix("allpackages."): one.body for one in letters}
    return Ran(ended.output, bodies, room)


def commit(world: KojiWorld, end: str) -> str:
    return world.commit(TESTED.replace("{end}", end)).partition("#")[2]


@pytest.mark.lab
def test_all_packages_builds_what_is_in_dist_git(
    prefect_server: PrefectServer, world: KojiWorld, tmp_path: Path
) -> None:
    seen = ran(prefect_server, world, commit(world, "true"), "allpackages", tmp_path)
    assert seen.built == ["tiny-1.2-3.fc41", "tiny-1.2-3.fc41", "passed"]
    last = seen.letters["package.complete"]
    assert (last["status"], last["nvr"], last["original_spec_nvr"]) == (
        "SUCCESS",
        "tiny-1.2-3.fc41",
        "tiny-1.2-3.fc41",
    )
    record = seen.record.build
    assert (record.srpm, record.original_nvr) == ("", "tiny-1.2-3.fc41")
    assert (record.unit_tests.status, record.unit_tests.evidence, record.unit_tests.seconds) == (
        "passed",
        "3 passed",
        0.5,
    )


@pytest.mark.lab
def test_atomic_builds_a_source_package_that_names_the_commit(
    prefect_server: PrefectServer, world: KojiWorld, tmp_path: Path
) -> None:
    rev = commit(world, "true")
    seen = ran(prefect_server, world, rev, "atomic", tmp_path)
    nvr = f"tiny-1.2-3.1.{rev[:7]}.fc41"
    assert seen.built == [nvr, "tiny-1.2-3.fc41", "passed"]
    last = seen.letters["package.complete"]
    assert (last["status"], last["nvr"], last["original_spec_nvr"]) == ("SUCCESS", f"{nvr}.src", "tiny-1.2-3.fc41")
    record = seen.record.build
    assert record.srpm == f"source/{nvr}.src.rpm"
    assert record.srpm_sha256 == sha256_of(seen.room / record.srpm)
    assert record.source.endswith(f"/rpms/tiny.git#{rev}")
    facts = Ledger(f"sqlite:///{tmp_path}/ledger.db").run(seen.room.name)
    assert facts is not None
    assert facts.facts.package_url == f"http://artifacts.test/{seen.room.name}/build"
    assert (seen.room / "build" / f"{nvr}.noarch.rpm").exists()


@pytest.mark.lab
def test_a_packagers_build_can_be_taken_for_a_host_though_its_release_does_not_name_the_commit(
    prefect_server: PrefectServer, world: KojiWorld, tmp_path: Path
) -> None:
    rev = commit(world, "true")
    hub = koji.ClientSession(world.profile.server, {"user": "koji", "password": "koji"})
    hub.login()
    task = int(hub.build(f"git+{world.dist_git.url}/rpms/tiny.git#{rev}", "f41", {}))
    seen = ran(prefect_server, world, rev, "atomic", tmp_path, str(task))
    assert seen.built == ["tiny-1.2-3.fc41", "tiny-1.2-3.fc41", "passed"]
    assert seen.record.build.task_id == task
    assert [one["id"] for one in hub.listTasks(opts={"method": "build"})][-1] == task
    assert not (seen.room / "source").exists()


@pytest.mark.lab
@pytest.mark.parametrize("pipeline", ["allpackages", "atomic"])
def test_failed_unit_tests_are_told_in_their_own_words(
    prefect_server: PrefectServer, world: KojiWorld, tmp_path: Path, pipeline: str
) -> None:
    seen = ran(prefect_server, world, commit(world, "exit 9"), pipeline, tmp_path)
    assert "the unit tests failed: 3 passed; Koji task" in seen.output
    assert seen.letters["package.complete"]["status"] == "FAILURE"
    assert (seen.room / "build/build.noarch.log").exists()
