"""A run's directory: fresh stages, and links to what anybody may have left there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distgate.runs.directory import MOST_LOGS, RunDirectory


def test_a_stage_that_is_tried_again_starts_anew(tmp_path: Path) -> None:
    room = RunDirectory(tmp_path / "run")
    (room.stage("build") / "old.log").write_text("old")
    assert (room.stage("build", fresh=False) / "old.log").exists()
    assert not list(room.stage("build").iterdir())


def test_a_stage_that_is_tried_again_keeps_the_evidence_of_the_tries_before(tmp_path: Path) -> None:
    room = RunDirectory(tmp_path / "run")
    for number in (1, 2, 3):
        place = room.stage_again("tests")
        (place / "console.log").write_text(f"boot {number}")
        (place / "guest.qcow2").touch()
    assert [path.parent.name for path in room.root.glob("*/*.qcow2")] == ["tests"]
    kept = {path.parent.name: path.read_text() for path in room.root.glob("*/console.log")}
    assert kept == {"tests.try-1": "boot 1", "tests.try-2": "boot 2", "tests": "boot 3"}


def test_only_text_that_lies_there_itself_is_linked_to(tmp_path: Path) -> None:
    room = RunDirectory(tmp_path / "run")
    place = room.stage("tests")
    (place / "test.log").write_text("")
    (place / "image.qcow2").write_text("")
    (place / "shadow.log").symlink_to("/etc/passwd")
    (place / "etc").symlink_to("/etc")
    os.mkfifo(place / "pipe.log")
    (place / "directory.log").mkdir()
    assert [path.name for path in room.logs()] == ["test.log"]


def test_any_number_of_logs_makes_a_list_of_bounded_length(tmp_path: Path) -> None:
    room = RunDirectory(tmp_path / "run")
    place = room.stage("tests")
    for number in range(MOST_LOGS + 5):
        (place / f"{number}.log").touch()
    assert len(room.logs()) == MOST_LOGS


# name of the file, its link when artifacts are served
NAMES = [
    (b"build.x86_64.log", r"[build.x86_64.log](http://host/files/run/tests/build.x86_64.log)"),
    (b"](x) <b>.log", r"[\]\(x\) \<b\>.log](http://host/files/run/tests/%5D%28x%29%20%3Cb%3E.log)"),
    (b"no text \xff.log", "[no text .log](http://host/files/run/tests/no%20text%20%FF.log)"),
]


@pytest.mark.parametrize(("name", "link"), NAMES)
def test_a_link_shows_a_strangers_file_name_as_it_is(tmp_path: Path, name: bytes, link: str) -> None:
    served, kept = (RunDirectory(tmp_path / "run", url) for url in ("http://host/files/", ""))
    path = served.stage("tests") / os.fsdecode(name)
    assert served.link(path, path.name) == link
    kept.link(path, path.name).encode()
