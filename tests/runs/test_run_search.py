"""Which run is meant: by ID, by message, by commit, by directory; and what is said when none is."""

import json
import os
from pathlib import Path

import pytest

from distgate.changes.change import Change
from distgate.errors import ConfigurationError
from distgate.pipelines import Pipeline
from distgate.runs.record import RunRecordFile
from distgate.runs.search import find_run

ONE, TWO = "11111111-aaaa-4bbb-8ccc-dddddddddddd", "11112222-aaaa-4bbb-8ccc-dddddddddddd"
CHANGE = Change(namespace="rpms", repo="dos2unix", rev="a" * 40, branch="f41", username="packager")
PUSH = {"commit": {**CHANGE.model_dump(), "email": "x"}, "topic": "org.fedoraproject.prod.git.receive"}
STAGE = {"topic": "org.centos.prod.ci.pipeline.allpackages.package.complete", "build_id": f"{ONE}.2"}


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """Two runs of one commit, the second one later, and a directory that is none."""
    place = tmp_path / "artifacts"
    for number, run_id in enumerate((ONE, TWO)):
        file = RunRecordFile(place / run_id / "run.json")
        file.begin(run_id, run_id, "lab", CHANGE)
        os.utime(file.path, (1000 + number, 1000 + number))
    (place / "33333333-empty").mkdir()
    return place


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_a_run_is_found_by_its_id_its_beginning_its_build_id_and_its_page(artifacts: Path) -> None:
    for name in (ONE, "11111111", f"{ONE}.2", f"http://prefect/runs/flow-run/{ONE}/"):
        assert find_run(name, [artifacts / "none", artifacts]).record.run_id == ONE


def test_a_run_is_found_by_its_directory_and_its_capsule_wherever_they_were_copied(artifacts: Path) -> None:
    moved = (artifacts / ONE).rename(artifacts.parent / "a copy")
    renamed = (artifacts / TWO / "run.json").rename(artifacts / TWO / "old.json")
    assert find_run(str(moved), []).directory == moved
    assert find_run(str(moved / "run.json"), []).record.run_id == ONE
    assert find_run(str(renamed), []).record.run_id == TWO


MESSAGES = [
    ("one of ours leads to its run", STAGE, ONE),
    ("one of ours in an envelope", {"topic": STAGE["topic"], "msg": STAGE}, ONE),
    ("a push leads to its newest run", PUSH, TWO),
    ("a push in an envelope", {"topic": PUSH["topic"], "msg": PUSH}, TWO),
]


@pytest.mark.parametrize(("message", "run_id"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES])
def test_a_run_is_found_by_a_message_about_it(
    artifacts: Path, tmp_path: Path, message: dict[str, object], run_id: str
) -> None:
    assert find_run(write(tmp_path / "message.json", message), [artifacts]).record.run_id == run_id


@pytest.mark.parametrize(("pipeline", "run_id"), [(None, TWO), ("allpackages", ONE), ("atomic", TWO)])
def test_of_a_push_the_newest_run_of_either_pipeline_is_meant_or_that_of_one(
    artifacts: Path, tmp_path: Path, pipeline: Pipeline | None, run_id: str
) -> None:
    RunRecordFile(artifacts / TWO / "run.json").begin(TWO, TWO, "lab", CHANGE, "atomic")
    push = write(tmp_path / "message.json", PUSH)
    assert find_run(push, [artifacts], pipeline).record.run_id == run_id


REFUSED = [
    ("more than one run", "1111", "2 runs begin with 1111"),
    ("no such run", "deadbeef", "run deadbeef is not in"),
    ("no run at all", "rawhide", "neither a file nor a run"),
    ("a directory that is no run's", "{artifacts}/33333333-empty", "cannot read"),
    ("a terminal's escapes", "\x1b[31mred", "'red' is neither"),
    ("a pasted message", json.dumps(PUSH) * 20, "neither a file nor a run"),
]


@pytest.mark.parametrize(("what", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_names_no_run_is_refused_in_a_sentence(artifacts: Path, what: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        find_run(what.replace("{artifacts}", str(artifacts)), [artifacts])
    assert words in refused.value.message


FILES = [
    (
        "a commit without a run",
        {**PUSH, "commit": {**PUSH["commit"], "rev": "b" * 40}},
        "no run of rpms/dos2unix@f41",
    ),  # type: ignore[dict-item]
    ("another topic", {"topic": "org.fedoraproject.prod.buildsys.tag", "msg": {}}, "does not speak of a push"),
    ("a message of ours without a run", {**STAGE, "build_id": "7"}, "has no build_id of ours"),
    ("no message", [1], "holds no JSON object"),
]


@pytest.mark.parametrize(("message", "words"), [f[1:] for f in FILES], ids=[f[0] for f in FILES])
def test_a_file_that_leads_to_no_run_is_refused_in_a_sentence(
    artifacts: Path, tmp_path: Path, message: object, words: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        find_run(write(tmp_path / "m.json", message), [artifacts])
    assert words in refused.value.message
