"""The inputs of a run come from its directory where they are still the same, else from Koji and dist-git."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from koji_world import KojiWorld, koji_world, spec

from distgate.builds.checkout import checkout
from distgate.changes.change import Change
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.rpm.nevra import read_rpms
from distgate.runs.inputs import RecordedInputs
from distgate.runs.record import BaseRecord, BuildRecord, RunRecord, record_rpms


@dataclass
class Run:
    """A finished run's directory, what is recorded of it, and what was said while its inputs were sought."""

    directory: Path
    build: BuildRecord
    record: RunRecord
    said: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> RecordedInputs:
        return RecordedInputs(self.record, self.directory, self.said.append, self.differences.append)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[KojiWorld]:
    with koji_world(tmp_path_factory.mktemp("koji"), cache) as running:
        yield running


@pytest.fixture(scope="module")
def built(world: KojiWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int, Path]:
    """The source, the Koji task, and the download of one real scratch build."""
    source = world.commit(spec(), {"tests/tests.yml": "---\n"})
    hub = world.client()
    task_id = hub.submit(source, "f41-candidate", "x86_64")
    hub.wait(task_id, 120, lambda _line: None)
    into = tmp_path_factory.mktemp("built")
    hub.download(task_id, into, "x86_64")
    return source, task_id, into


@pytest.fixture
def run(world: KojiWorld, built: tuple[str, int, Path], tmp_path: Path) -> Run:
    source, task_id, download = built
    directory = tmp_path / "run"
    (directory / "build").mkdir(parents=True)
    for path in download.glob("*.rpm"):
        (directory / "build" / path.name).write_bytes(path.read_bytes())
    build = BuildRecord(
        server=world.profile.server,
        topurl=world.profile.topurl,
        task_id=task_id,
        source=source,
        rpms=record_rpms(read_rpms(sorted((directory / "build").glob("*.rpm")))),
    )
    change = Change(namespace="rpms", repo="tiny", rev=source.partition("#")[2], branch="f41")
    return Run(directory, build, RunRecord(run_id="r", build_id="r", site="lab", change=change))


def unreachable(build: BuildRecord) -> BuildRecord:
    nowhere = {"server": "http://127.0.0.1:1/kojihub", "topurl": "http://127.0.0.1:1", "source": "git+file:///none#x"}
    return build.model_copy(update=nowhere)


def test_rpms_of_the_directory_are_taken_without_asking_anybody(run: Run, tmp_path: Path) -> None:
    run.inputs.packages(tmp_path / "build", unreachable(run.build))
    names = sorted(path.name for path in (tmp_path / "build").glob("*.rpm"))
    assert names == ["tiny-1.2-3.fc41.noarch.rpm", "tiny-1.2-3.fc41.src.rpm"]
    assert (tmp_path / "build/repodata/repomd.xml").is_file()
    assert run.differences == []


def test_an_rpm_that_was_changed_is_fetched_from_koji_instead(run: Run, tmp_path: Path) -> None:
    (changed,) = (run.directory / "build").glob("*.noarch.rpm")
    whole = changed.read_bytes()
    changed.write_bytes(b"something else")
    run.inputs.packages(tmp_path / "build", run.build)
    assert (tmp_path / "build" / changed.name).read_bytes() == whole
    assert run.differences == []
    assert any(f"asking Koji task {run.build.task_id}" in line for line in run.said)


def test_an_rpm_that_koji_has_otherwise_is_taken_and_told_of(run: Run, tmp_path: Path) -> None:
    for path in (run.directory / "build").glob("*.rpm"):
        path.unlink()
    rpms = tuple(rpm.model_copy(update={"sha256": "0" * 64}) for rpm in run.build.rpms)
    run.inputs.packages(tmp_path / "build", run.build.model_copy(update={"rpms": rpms}))
    assert len(run.differences) == 2
    koji = f"of Koji task {run.build.task_id} is not the one that the run tested"
    assert f"tiny-1.2-3.fc41.noarch.rpm {koji}" in run.differences


def test_rpms_that_are_nowhere_are_an_error_of_ours(run: Run, tmp_path: Path) -> None:
    (run.directory / "build/tiny-1.2-3.fc41.noarch.rpm").unlink()
    with pytest.raises(InfrastructureError, match="cannot reach the hub"):
        run.inputs.packages(tmp_path / "build", unreachable(run.build))


def test_the_run_s_checkout_is_taken_as_it_was_committed_whatever_a_suite_did_to_it(run: Run, tmp_path: Path) -> None:
    own = checkout(run.build.repository_url, run.record.change.rev, run.directory / "checkout/tiny")
    (own / "tests/tests.yml").write_text("changed by a suite\n")
    found = run.inputs.checkout(tmp_path / "a b" / "tiny", unreachable(run.build))
    assert (found / "tests/tests.yml").read_text() == "---\n"
    assert sorted(path.name for path in (tmp_path / "a b").iterdir()) == ["tiny"]


@pytest.mark.parametrize("broken", [False, True])
def test_without_a_checkout_of_use_dist_git_is_asked(run: Run, tmp_path: Path, broken: bool) -> None:
    if broken:
        (run.directory / "checkout/tiny/.git").mkdir(parents=True)
    found = run.inputs.checkout(tmp_path / "tiny", run.build)
    assert (found / "tests/tests.yml").read_text() == "---\n"


def base(place: Path, identity: str = "lab-cloud-1") -> dict[str, object]:
    place.mkdir(parents=True)
    for name in ("base.qcow2", "key"):
        (place / name).touch()
    known = {"path": str(place / "base.qcow2"), "identity": identity, "root_offset": 7, "ssh_key": str(place / "key")}
    (place / "base.json").write_text(json.dumps(known))
    return known


def test_the_base_is_where_the_run_had_it_or_in_the_store_or_the_one_that_is_named(run: Run, tmp_path: Path) -> None:
    known = base(tmp_path / "there")
    there = BaseRecord.model_validate(known)
    gone = there.model_copy(update={"path": "/nowhere/base.qcow2"})
    base(tmp_path / "store/bases/lab-cloud-1")
    base(tmp_path / "other", "lab-cloud-2")
    assert run.inputs.base(there, [], None).path == tmp_path / "there/base.qcow2"
    stored = run.inputs.base(gone, [tmp_path / "empty", tmp_path / "store"], None)
    assert stored.path == tmp_path / "store/bases/lab-cloud-1/base.qcow2"
    assert run.differences == []
    assert run.inputs.base(there, [], tmp_path / "other/base.json").identity == "lab-cloud-2"
    assert run.differences == ["the base image is lab-cloud-2, not lab-cloud-1"]


def test_a_base_that_is_not_here_is_named(run: Run, tmp_path: Path) -> None:
    gone = BaseRecord(path="/nowhere", identity="lab-cloud-1", root_offset=0, ssh_key="/nowhere")
    with pytest.raises(ConfigurationError, match="lab-cloud-1 is not on this machine"):
        run.inputs.base(gone, [tmp_path], None)
    (tmp_path / "odd.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="describes no base image"):
        run.inputs.base(gone, [], tmp_path / "odd.json")
