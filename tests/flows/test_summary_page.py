"""What the summary says of suites and of doing it by hand; the words of strangers are shown, never obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.capsule import (
    BuildRecord,
    Capsule,
    HeldRecord,
    RerunRecord,
    SuiteRecord,
    TestRecord,
    TestsRecord,
)
from distgate.change import Change
from distgate.run_directory import RunDirectory
from tasks.summary_page import by_hand, suites_section

CHANGE = Change(namespace="rpms", repo="dos2unix", rev="a" * 40, branch="f41")
BUILD = BuildRecord(server="http://hub", topurl="http://top", task_id=7, source="git+http://dist-git#x")
CAPSULE = Capsule(run_id="run-1", build_id="run-1", site="lab", change=CHANGE, build=BUILD)
HELD = HeldRecord(name="guest-1", host="worker", ssh="ssh -p 2222 root@127.0.0.1", until=0.0, why="tests.yml: a | b")


@pytest.fixture
def room(tmp_path: Path) -> RunDirectory:
    """A run's directory with one log that is there, and one that leads out of it."""
    artifacts = tmp_path / "run-1/tests/tests/artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "test.log").write_text("FAIL a\n")
    (artifacts / "passwd.log").symlink_to("/etc/passwd")
    (tmp_path / "secret.log").touch()
    return RunDirectory(tmp_path / "run-1", "http://artifacts")


def with_suite(*tests: TestRecord, **other: object) -> Capsule:
    known = {"suite": "tests/tests.yml", "kind": "sti", "verdict": "FAIL", "blame": "package", "tests": tests}
    suite = SuiteRecord.model_validate({**known, "directory": "tests/tests", "evidence": "a (fail)", **other})
    return CAPSULE.model_copy(update={"tests": TestsRecord(kind="sti", suites=(suite,))})


@pytest.mark.parametrize("status", ["UNSTABLE", "FAILURE", "ABORTED"])
def test_a_run_that_did_not_pass_shows_the_command_that_does_it_again(status: str, room: RunDirectory) -> None:
    page = by_hand(status, CAPSULE, room)
    assert "\ndistgate reproduce run-1\n" in page
    assert str(room.root) in page


def test_a_run_that_passed_or_was_never_submitted_shows_no_command(room: RunDirectory) -> None:
    assert by_hand("SUCCESS", CAPSULE, room) == ""
    assert by_hand("FAILURE", CAPSULE.model_copy(update={"build": None}), room) == ""


def test_a_held_guest_is_shown_with_its_way_in_its_host_and_its_deadline(room: RunDirectory) -> None:
    page = by_hand("UNSTABLE", CAPSULE.model_copy(update={"held": HELD}), room)
    assert "1970-01-01 00:00:00 UTC" in page
    assert "`worker`" in page
    assert "\nssh -p 2222 root@127.0.0.1\ndistgate guests down guest-1\n" in page


def test_each_test_has_links_to_its_logs_and_to_nothing_outside_of_its_artifacts(room: RunDirectory) -> None:
    logs = ("test.log", "passwd.log", "../../../../secret.log", "/etc/passwd", "gone.log", "\0", ".")
    page = suites_section(with_suite(TestRecord(name="a", result="fail", logs=logs)), room)
    assert page.count("http://artifacts/") == 2  # the log, and junit.xml
    assert "http://artifacts/run-1/tests/tests/artifacts/test.log" in page
    assert "http://artifacts/run-1/tests/junit.xml" in page


def test_what_a_second_run_says_stands_beside_the_verdict(room: RunDirectory) -> None:
    rerun = RerunRecord(words="fails only with it", evidence="twice with the change, not without it: a")
    page = suites_section(with_suite(rerun=rerun), room)
    assert "FAIL (blame: package). a \\(fail\\) Run again: **fails only with it**" in page


def test_names_of_tests_are_text_and_never_markdown_or_rows(room: RunDirectory) -> None:
    page = suites_section(with_suite(TestRecord(name="[x](http://evil) | b\nc", result="fail")), room)
    assert "](http://evil)" not in page
    assert "\nc" not in page


def test_a_package_without_tests_is_said_to_have_none(room: RunDirectory) -> None:
    page = suites_section(CAPSULE.model_copy(update={"tests": TestsRecord(reason="no tests: there is none")}), room)
    assert page == "## Tests\n\nSkipped: no tests: there is none"
