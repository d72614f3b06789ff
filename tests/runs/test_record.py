"""The capsule: written step by step, read by whoever gets the directory, refused with the name of the field."""

import json
from pathlib import Path
from typing import Any

import pytest

from distgate.changes.change import Change
from distgate.errors import ConfigurationError
from distgate.rpm.nevra import Nevra
from distgate.runs.record import (
    BuildRecord,
    RpmRecord,
    RunRecordFile,
    SmokeRecord,
    SuiteRecord,
    TestsRecord,
    VerdictRecord,
    load,
)

CHANGE = Change(namespace="rpms", repo="dos2unix", rev="a" * 40, branch="f41", username="packager")
NEVRA = Nevra("dos2unix", 0, "7.4.3", "2", "x86_64", "dos2unix-7.4.3-2.src.rpm")
RPM = RpmRecord(name="dos2unix-7.4.3-2.x86_64.rpm", sha256="0" * 64, nevra=NEVRA)
BUILD = BuildRecord(
    server="http://hub",
    topurl="http://top",
    task_id=7,
    source=f"git+http://dist-git/rpms/dos2unix.git#{'a' * 40}",
    nvr="dos2unix-7.4.3-2",
    rpms=(RPM,),
    packages=(NEVRA,),
)


def begun(tmp_path: Path) -> RunRecordFile:
    file = RunRecordFile(tmp_path / "run/run.json")
    file.begin("run-1", "run-1", "lab", CHANGE)
    return file


def test_what_is_noted_step_by_step_is_read_back_as_it_was(tmp_path: Path) -> None:
    file = begun(tmp_path)
    file.update(build=BUILD)
    file.update(smoke=SmokeRecord(passed=True, sentence="it boots"))
    seen = load(file.path)
    assert (seen.change, seen.build, seen.compose) == (CHANGE, BUILD, None)
    assert seen.smoke == SmokeRecord(passed=True, sentence="it boots")
    assert {"python", "distgate", "kernel"} <= set(seen.tools)
    assert [path.name for path in file.path.parent.iterdir()] == ["run.json"]


def test_the_address_of_the_repository_is_in_the_source_that_koji_got() -> None:
    assert BUILD.repository_url == "http://dist-git/rpms/dos2unix.git"


def test_a_retry_keeps_what_earlier_stages_said_and_drops_the_verdict(tmp_path: Path) -> None:
    file = begun(tmp_path)
    file.update(build=BUILD, verdict=VerdictRecord(status="FAILURE", sentence="it broke"))
    seen = file.begin("run-1", "run-1.2", "lab", CHANGE)
    assert (seen.build, seen.verdict, seen.build_id) == (BUILD, None, "run-1.2")
    assert load(file.path) == seen


def test_another_run_and_a_record_that_was_cut_off_begin_anew(tmp_path: Path) -> None:
    file = begun(tmp_path)
    file.update(build=BUILD)
    assert file.begin("run-2", "run-2", "lab", CHANGE).build is None
    file.path.write_text(file.path.read_text()[:50])
    assert file.begin("run-2", "run-2", "lab", CHANGE).build is None


def test_fields_of_a_later_distgate_are_ignored(tmp_path: Path) -> None:
    file = begun(tmp_path)
    file.update(tests=TestsRecord(kind="sti", suites=(SuiteRecord(suite="s", kind="sti", verdict="PASS"),)))
    raw = json.loads(file.path.read_text())
    raw["weather"] = raw["change"]["weather"] = raw["tests"]["suites"][0]["weather"] = "fine"
    file.path.write_text(json.dumps(raw))
    assert load(file.path).tests == TestsRecord(
        kind="sti", suites=(SuiteRecord(suite="s", kind="sti", verdict="PASS"),)
    )


REFUSED: list[tuple[str, tuple[str | int, ...], Any, str]] = [
    ("no run", ("run_id",), None, "run_id"),
    ("a commit that is none", ("change", "rev"), "HEAD", "change.rev"),
    ("a task that is no number", ("build", "task_id"), "seven", "build.task_id"),
    ("a checksum that is none", ("build", "rpms", 0, "sha256"), "abc", "build.rpms.0.sha256"),
    ("an RPM outside of the directory", ("build", "rpms", 0, "name"), "../../x.rpm", "build.rpms.0.name"),
    ("a file that is no RPM", ("build", "rpms", 0, "name"), "run.json", "build.rpms.0.name"),
    ("a later version", ("version",), 2, "newer distgate"),
    ("blame that nobody knows", ("tests", "suites", 0, "blame"), "the weather", "tests.suites.0.blame"),
]


@pytest.mark.parametrize(("path", "value", "words"), [c[1:] for c in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_cannot_be_is_refused_with_the_name_of_the_field(
    tmp_path: Path, path: tuple[str | int, ...], value: Any, words: str
) -> None:
    file = begun(tmp_path)
    tests = TestsRecord(kind="sti", suites=(SuiteRecord(suite="s", kind="sti", verdict="PASS"),))
    raw = file.update(build=BUILD, tests=tests).model_dump(mode="json")
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.path.write_text(json.dumps(raw))
    with pytest.raises(ConfigurationError) as refused:
        load(file.path)
    assert words in refused.value.message


@pytest.mark.parametrize("text", ["", "[", "[]", "null", '"run"'])
def test_what_is_no_capsule_is_said_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"run\.json"):
        load(tmp_path / "run.json")
