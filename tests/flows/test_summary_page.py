"""What the summary says of suites and of doing it by hand; the words of strangers are shown, never obeyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.changes.change import Change
from distgate.errors import Cancelled, ConfigurationError, InfrastructureError, PackageError
from distgate.guests.registry import HeldGuest
from distgate.ledger.runs import OutboxMessage, Run, RunFacts
from distgate.ledger.stage_times import stage_times
from distgate.process import run
from distgate.runs.directory import RunDirectory
from distgate.runs.record import BuildRecord, RerunRecord, RunRecord, SuiteRecord, TestRecord, TestsRecord
from tasks.functional import TestReport
from tasks.page.all_packages import ImageReport
from tasks.page.commands import reproduce_section, run_again_section
from tasks.page.page import logs_section, summary_page
from tasks.page.tests import failing_tests, suites_section
from tasks.run.job import Job

CHANGE = Change(namespace="rpms", repo="dos2unix", rev="a" * 40, branch="f41")
BUILD = BuildRecord(server="http://hub", topurl="http://top", task_id=7, source="git+http://dist-git#x")
CAPSULE = RunRecord(run_id="run-1", build_id="run-1", site="lab", change=CHANGE, build=BUILD)
HELD = HeldGuest(name="guest-1", host="worker", ssh="ssh -p 2222 root@127.0.0.1", until=0.0, why="tests.yml: a | b")


@pytest.fixture
def room(tmp_path: Path) -> RunDirectory:
    """A run's directory with one log that is there, and one that leads out of it."""
    artifacts = tmp_path / "run-1/tests/tests/artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "test.log").write_text("FAIL a\n")
    (artifacts / "passwd.log").symlink_to("/etc/passwd")
    (tmp_path / "secret.log").touch()
    return RunDirectory(tmp_path / "run-1", "http://artifacts")


def with_suite(*tests: TestRecord, **other: object) -> RunRecord:
    known = {"suite": "tests/tests.yml", "kind": "sti", "verdict": "FAIL", "blame": "package", "tests": tests}
    suite = SuiteRecord.model_validate({**known, "directory": "tests/tests", "evidence": "a (fail)", **other})
    return CAPSULE.model_copy(update={"tests": TestsRecord(kind="sti", suites=(suite,))})


def test_every_run_that_was_built_shows_the_command_that_does_it_again(room: RunDirectory) -> None:
    page = reproduce_section(CAPSULE, room)
    assert "\ndistgate reproduce run-1\n" in page
    assert str(room.root) in page
    assert reproduce_section(CAPSULE.model_copy(update={"build": None}), room) == ""


def test_a_held_guest_is_shown_with_its_way_in_its_host_and_its_deadline(room: RunDirectory) -> None:
    page = reproduce_section(CAPSULE.model_copy(update={"held": HELD}), room)
    assert "1970-01-01 00:00:00 UTC" in page
    assert "`worker`" in page
    assert "\nssh -p 2222 root@127.0.0.1\ndistgate guests down guest-1\n" in page


AGAIN = ("prefect", "deployment", "run", "all-packages/manual")
COMMANDS: list[tuple[str, str, list[tuple[str, ...]]]] = [
    ("SUCCESS", "", [(*AGAIN, "again=true")]),
    ("UNSTABLE", "package.test.functional", [(*AGAIN, "start_from=package.test.functional"), (*AGAIN, "again=true")]),
    ("FAILURE", "image", [("prefect", "flow-run", "retry", "run-1"), (*AGAIN, "again=true")]),
    ("ABORTED", "package", [("prefect", "flow-run", "retry", "run-1"), (*AGAIN, "again=true")]),
]


def as_pasted(block: str) -> list[str]:
    """The words that a shell makes of a command."""
    said = run(["bash", "-c", f'prefect() {{ printf "%s\\0" prefect "$@"; }}{block}'], timeout=10).output
    return said.removesuffix("\0").split("\0")


@pytest.mark.parametrize(("status", "stage", "wanted"), COMMANDS)
def test_the_commands_that_test_again_name_the_run_or_the_whole_change(
    status: str, stage: str, wanted: list[tuple[str, ...]]
) -> None:
    page = run_again_section(status, CAPSULE, stage)
    found = [as_pasted(block) for block in page.split("```")[1::2]]
    told = ("--param", "change=", "site=")
    assert [tuple(word for word in words if not word.startswith(told)) for words in found] == wanted
    for words in found:
        changes = [word.removeprefix("change=") for word in words if word.startswith("change=")]
        assert all(Change.model_validate_json(one) == CHANGE for one in changes)
        assert 'site="lab"' in words or "retry" in words  # this process has another site by default
    assert max(map(len, page.splitlines())) < 90  # or Prefect's pages cut it off


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


BUILD_LOG = "cc -c a.c\na.c:1: error: no such type\nerror: Bad exit status from %build\n"
UNSTABLE_TESTS = RunFacts(statuses={"package.test.functional": "UNSTABLE"})
RUN = Run("run-1", CHANGE, "http://ui", 1, "SUCCESS", None, UNSTABLE_TESTS, False)
PREFIX = "org.centos.prod.ci.pipeline.allpackages."
#: Who is told to look, by what ended the run; the sentence, and what else the page must say.
ENDS: list[tuple[str, BaseException | None, str, str, list[str]]] = [
    (
        "FAILURE",
        PackageError("it does not build", hint="look at the log", evidence=BUILD_LOG),
        "It does not build**",
        "package.** That is the change itself",
        ["**Evidence:** a.c:1: error: no such type", "**Hint:** look at the log", f"```\n{BUILD_LOG.strip()}\n```"],
    ),
    (
        "FAILURE",
        InfrastructureError("the hub is away", evidence="[Errno 111] Connection refused"),
        "The hub is away**",
        "infrastructure.** That is our machines or a service, not the package",
        ["**Evidence:** \\[Errno 111\\] Connection refused"],
    ),
    (
        "FAILURE",
        ConfigurationError("there is no such branch"),
        "There is no such branch**",
        "configuration.** That is a setting",
        [],
    ),
    (
        "FAILURE",
        ZeroDivisionError("division by zero"),
        "ZeroDivisionError: division by zero \\(a bug of distgate\\)**",
        "bug.** That is this CI, not the package",
        [],
    ),
    ("ABORTED", Cancelled("somebody did"), "Somebody did**", "cancelled.** That is nobody", []),
    (
        "ABORTED",
        KeyboardInterrupt(),
        "Cancelled, or its process was told to end \\(KeyboardInterrupt\\)**",
        "cancelled.** That is nobody",
        [],
    ),
]


def job_in(room: RunDirectory) -> Job:
    return Job("run-1", 1, CHANGE, "lab", room)


def letter(suffix: str, state: str, status: str = "SUCCESS", at: float = 0.0) -> OutboxMessage:
    body = {"build_id": "run-1", "status": status}
    return OutboxMessage(1, f"{suffix}{state}", f"{PREFIX}{suffix}{state}", body, at, None, 0, None)


@pytest.mark.parametrize(("status", "error", "sentence", "blamed", "words"), ENDS)
def test_the_page_begins_with_the_verdict_who_is_to_blame_and_the_evidence(
    status: str, error: BaseException, sentence: str, blamed: str, words: list[str], room: RunDirectory
) -> None:
    report = ImageReport(job_in(room), error=error)
    page = summary_page(report, CAPSULE, RUN, [], [])
    head = page.partition("## Stages")[0]
    assert head.startswith(f"# {status}: dos2unix f41 aaaaaaa\n\n**{sentence}")
    assert f"**Blame: {blamed}" in head
    for one in words:
        assert one in head
    assert page.index("## Test it again") < page.index("## What was tested") < page.index("## Messages")


def test_an_unstable_run_quotes_the_log_of_the_test_that_failed(room: RunDirectory) -> None:
    failing = TestRecord(name="a", result="fail", note="too late", logs=("passwd.log", "test.log"))
    said = failing_tests(with_suite(TestRecord(name="b", result="pass"), *[failing] * 5), room)
    assert said.startswith("**Evidence:** tests/tests.yml: a (fail), too late, [test.log](http://artifacts/run-1/")
    assert "```\nFAIL a\n```" in said
    assert said.count("**Evidence:**") == 3
    assert said.endswith("... and 2 more, see below")


def test_the_logs_of_the_stage_that_ended_the_run_are_at_the_top_the_telling_ones_first(room: RunDirectory) -> None:
    (room.root / "smoke").mkdir()
    for name in ("qemu.log", "console.log", "boot.json"):
        (room.root / "smoke" / name).touch()
    letters = [letter("package.test.functional.", "complete", "UNSTABLE"), letter("image.test.smoke.", "running")]
    times = [one.closed(9.0, "FAILURE") for one in stage_times(letters, "run-1", {})]
    page = summary_page(ImageReport(job_in(room), error=PackageError("it does not boot")), CAPSULE, RUN, times, [])
    head = page.partition("## Stages")[0]
    assert "**Logs of `image.test.smoke`:** [smoke/console.log](http://artifacts/run-1/smoke/console.log)" in head
    unstable = ImageReport(job_in(room), verdict=TestReport("UNSTABLE", ()))
    assert "**Logs of `package.test.functional`:**" in summary_page(unstable, CAPSULE, RUN, times, [])


def test_the_messages_so_far_and_the_last_one_are_listed(room: RunDirectory) -> None:
    letters = [letter("package.", "queued"), letter("package.", "complete", "UNSTABLE", 3600.0)]
    report = ImageReport(job_in(room), verdict=TestReport("UNSTABLE", ()))
    page = summary_page(report, CAPSULE, RUN, [], letters)
    assert f"`{PREFIX}`" in page
    assert "`complete`, says UNSTABLE" in page
    assert "| 00:00:00 | package.queued | SUCCESS |\n| 01:00:00 | package.complete | UNSTABLE |" in page


STAGES: list[tuple[list[OutboxMessage], list[tuple[str, str, str]]]] = [
    (
        [letter("package.", "running", at=1), letter("package.", "complete", at=3)],
        [("package", "SUCCESS", "2.0")],
    ),
    (
        [
            *(letter("package.", "complete"), letter("package.test.functional.", "queued")),
            letter("package.test.functional.", "complete", "UNSTABLE", 4.5),
            *(letter("compose.", "running", "UNSTABLE", 5), letter("compose.", "complete", "UNSTABLE", 6)),
        ],
        [
            ("package", "SUCCESS", "0.0"),
            ("package.test.functional", "UNSTABLE", "4.5"),
            ("compose", "SUCCESS", "1.0"),
        ],
    ),
    ([letter("image.", "running", at=8)], [("image", "ABORTED", "2.0")]),
]


@pytest.mark.parametrize(("letters", "rows"), STAGES)
def test_each_stage_has_its_own_status_and_duration_also_one_that_was_broken_off(
    letters: list[OutboxMessage], rows: list[tuple[str, str, str]]
) -> None:
    times = [one.closed(10.0, "ABORTED") for one in stage_times(letters, "run-1", RUN.facts.statuses)]
    assert [tuple(one.row().values()) for one in times] == rows


def test_logs_are_linked_by_directory(room: RunDirectory) -> None:
    (room.root / "run.json").write_text("{}")
    (room.root / "build").mkdir()
    (room.root / "build/build.log").touch()
    (room.root / "build/root.log").touch()
    lines = [line.replace("http://artifacts/run-1/", "") for line in logs_section(room).splitlines()]
    assert "- build: [build.log](build/build.log), [root.log](build/root.log)" in lines
    assert "- [run.json](run.json)" in lines
