"""All suites are run and judged; only our own breakage is tried again; a failure is explained where that is asked.

The guests here are directories: what a suite does in them is written down in a table.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from distgate.errors import GaveUp, InfrastructureError, TestsError
from distgate.guests.base import CommandResult, Guest
from distgate.images.base import BaseImage
from distgate.rpm.nevra import Nevra
from distgate.runners.session import RunnerFor, RunSuite, SuiteSession, failure_of, status_of, suite_directories
from distgate.testing.discovery import Suite
from distgate.testing.verdict import SuiteRun, SuiteVerdict

NEVRA = Nevra("dos2unix", 0, "7.4.3", "2", "x86_64", "dos2unix-7.4.3-2.src.rpm")
IMAGE, BASE = Path("/image.qcow2"), Path("/base.qcow2")


@dataclass(frozen=True)
class PaperGuest:
    """A guest that knows which image it was booted from, and which packages are installed there."""

    name: str
    image: Path
    console: Path
    installed: str
    port: int = 22
    key: Path = Path("/key")

    def run(self, command: str, timeout: float) -> CommandResult:
        assert command.startswith("rpm -qa")
        return CommandResult(0, self.installed, "")

    def console_tail(self, size: int = 2000) -> str:
        return "login:"


@dataclass
class PaperHost:
    """A GuestHost that counts its boots; those whose number is in ``broken`` fail, at their end when negative."""

    broken: tuple[int, ...] = ()
    base_has: str = "bash\n"
    boots: list[Path] = field(default_factory=list)
    running: int = 0

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        self.boots.append(image)
        workdir.mkdir(parents=True)
        (workdir / "console.log").write_text(f"boot {len(self.boots)}")
        if len(self.boots) in self.broken:
            raise InfrastructureError("the guest did not come up")
        self.running += 1
        yield PaperGuest(f"guest-{len(self.boots)}", image, workdir / "console.log", self.base_has)
        self.running -= 1
        if -len(self.boots) in self.broken:
            raise InfrastructureError("the guest did not end")


Script = Callable[[Path, int], str]
"""What a suite does on its n-th run against an image: a word for each test, or how its runner ends."""


@dataclass
class PaperRunner:
    """A RunnerFor whose suites do what ``script`` says."""

    script: Script
    plans: tuple[str, ...] | None = None
    runs: list[Path] = field(default_factory=list)
    asked: int = 0

    def enabled(self, checkout: Path) -> tuple[str, ...]:
        self.asked += 1
        if self.plans is None:
            raise TestsError("tmt cannot read the plans")
        return self.plans

    def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
        def run(guest: Guest, artifacts: Path, timeout: float) -> SuiteRun:
            self.runs.append(checkout / suite.path)
            words = self.script(image, self.runs.count(checkout / suite.path))
            artifacts.mkdir(parents=True)
            if words in ("unreachable", "nothing"):
                return SuiteRun(suite.path, 0, artifacts, unreachable=words == "unreachable")
            lines = [f"- {{test: test-{number}, result: {word}}}" for number, word in enumerate(words.split(), 1)]
            (artifacts / "results.yml").write_text("results:\n" + "\n".join(lines) + "\n")
            return SuiteRun(suite.path, 0, artifacts)

        return run


def session(
    host: PaperHost, runner: RunnerFor, ended: Callable[[Guest, SuiteVerdict, bool], None] = lambda *_: None
) -> SuiteSession:
    base = BaseImage(BASE, "base-1", 0, Path("/key"))
    return SuiteSession(host, base, IMAGE, [NEVRA], runner, 1, 1, ended=ended)


SUITES = (Suite("tests/tests.yml"), Suite("tests/tests_python.yml"))

ENDS: list[tuple[str, Script, tuple[int, ...], list[str], int]] = [
    ("everything passes", lambda _image, _number: "pass", (), ["PASS", "PASS"], 2),
    ("a failing test is never tried again", lambda _image, _number: "fail pass", (), ["FAIL", "FAIL"], 2),
    ("nothing is not tried again", lambda _image, _number: "nothing", (), ["NOTHING_RUN", "NOTHING_RUN"], 2),
    (
        "a guest that is lost is replaced once",
        lambda _image, number: "unreachable" if number == 1 else "pass",
        (),
        ["PASS", "PASS"],
        4,
    ),
    ("one that is lost twice is our error", lambda _image, _number: "unreachable", (), ["ERROR", "ERROR"], 4),
    ("a boot that fails is tried once more", lambda _image, _number: "pass", (1,), ["PASS", "PASS"], 3),
    ("no guest for the second suite leaves the first's", lambda *_: "fail", (2, 3), ["FAIL", "ERROR"], 3),
    ("a guest that ends badly leaves its suite's verdict", lambda *_: "fail", (-1,), ["FAIL", "FAIL"], 2),
]


@pytest.mark.parametrize(("script", "broken", "verdicts", "boots"), [e[1:] for e in ENDS], ids=[e[0] for e in ENDS])
def test_every_suite_is_run_and_only_our_own_breakage_is_tried_again(
    tmp_path: Path, script: Script, broken: tuple[int, ...], verdicts: list[str], boots: int
) -> None:
    host = PaperHost(broken)
    judged = session(host, PaperRunner(script)).run(tmp_path, SUITES, tmp_path / "room")
    assert [one.verdict.verdict for one in judged] == verdicts
    assert (len(host.boots), host.running) == (boots, 0)


def test_the_evidence_of_a_try_that_broke_is_kept_beside_that_of_the_one_that_counts(tmp_path: Path) -> None:
    lost_once = PaperRunner(lambda _image, number: "unreachable" if number == 1 else "pass")
    (judged,) = session(PaperHost(), lost_once).run(tmp_path, SUITES[:1], tmp_path / "room")
    assert judged.directory == tmp_path / "room/tests"
    assert (judged.directory / "try-1/guest/console.log").read_text() == "boot 1"
    assert (judged.directory / "guest/console.log").read_text() == "boot 2"
    assert (judged.artifacts / "results.yml").is_file()


def test_without_any_guest_the_stage_breaks_and_may_be_tried_again(tmp_path: Path) -> None:
    unread = Suite("tests/tests_a.yml", problem="line 3, column 1: no YAML")
    host = PaperHost(broken=(1, 2))
    with pytest.raises(InfrastructureError, match="did not come up"):
        session(host, PaperRunner(lambda *_: "pass")).run(tmp_path, [unread, *SUITES], tmp_path / "room")
    assert len(host.boots) == 2


def test_what_the_stage_has_no_time_for_is_not_started_and_said(tmp_path: Path) -> None:
    told: list[float] = []

    class Slow(PaperRunner):
        def __call__(self, suite: Suite, checkout: Path, image: Path) -> RunSuite:
            inner = super().__call__(suite, checkout, image)

            def run(guest: Guest, artifacts: Path, timeout: float) -> SuiteRun:
                told.append(timeout)
                time.sleep(timeout)
                return inner(guest, artifacts, timeout)

            return run

    host = PaperHost()
    short = replace(session(host, Slow(lambda *_: "fail")), suite_timeout=3600, tests_timeout=0.5)
    judged = short.run(tmp_path, SUITES, tmp_path / "room", rerun_failed=True)
    assert [(one.verdict.verdict, one.verdict.blame) for one in judged] == [
        ("FAIL", "package"),
        ("NOTHING_RUN", "tests"),
    ]
    assert "all suites together have 0.5 s" in judged[1].verdict.evidence
    assert [one.rerun.finding for one in judged if one.rerun] == ["cannot be told", "cannot be told"]
    assert told == [1.0]
    assert len(host.boots) == 1


def test_a_suite_that_cannot_be_read_is_judged_without_a_guest(tmp_path: Path) -> None:
    host = PaperHost()
    (judged,) = session(host, PaperRunner(lambda *_: "pass")).run(
        tmp_path, [Suite("tests/tests.yml", problem="line 3, column 1: no YAML")], tmp_path / "room"
    )
    assert (judged.verdict.verdict, judged.verdict.blame, host.boots) == ("ERROR", "tests", [])


PLANS = (
    Suite("plans/ci.fmf", kind="tmt", plan="/plans/ci", adjusted=True),
    Suite("plans/slow.fmf", kind="tmt", plan="/plans/slow", adjusted=True),
    Suite("plans/plain.fmf", kind="tmt", plan="/plans/plain"),
)
#: Which plans tmt calls enabled (None: it cannot read the tree), and the suites that are run.
ENABLED: list[tuple[str, tuple[str, ...] | None, tuple[Suite, ...], list[str], int]] = [
    ("one is disabled", ("/plans/ci", "/plans/plain"), PLANS, ["/plans/ci", "/plans/plain"], 1),
    ("all are", (), PLANS[:2], [], 1),
    ("a tree that tmt cannot read", None, PLANS, ["/plans/ci", "/plans/slow", "/plans/plain"], 1),
    ("no plan has adjust", (), PLANS[2:], ["/plans/plain"], 0),
    ("playbooks", (), SUITES, ["tests/tests.yml", "tests/tests_python.yml"], 0),
]


@pytest.mark.parametrize(("enabled", "suites", "ran", "asked"), [e[1:] for e in ENABLED], ids=[e[0] for e in ENABLED])
def test_plans_that_adjust_disables_are_told_and_not_run_and_tmt_is_asked_once_for_all(
    tmp_path: Path, enabled: tuple[str, ...] | None, suites: tuple[Suite, ...], ran: list[str], asked: int
) -> None:
    host, runner, told = PaperHost(), PaperRunner(lambda *_: "pass", enabled), list[str]()
    base = BaseImage(BASE, "base-1", 0, Path("/key"))
    one = SuiteSession(host, base, IMAGE, [NEVRA], runner, 1, 1, progress=told.append)
    judged = one.run(tmp_path, suites, tmp_path / "room")
    assert [seen.suite.name for seen in judged] == ran
    assert (len(host.boots), runner.asked) == (len(ran), asked)
    for suite in suites:
        assert any(line.startswith(f"{suite.name}: not run") for line in told) is (suite.name not in ran)


def test_guests_are_shown_at_the_end_of_each_suite_while_they_run(tmp_path: Path) -> None:
    host, seen = PaperHost(), []

    def ended(guest: Guest, verdict: SuiteVerdict, last: bool) -> None:
        seen.append((guest.name, verdict.verdict, last, host.running))

    lost_once = PaperRunner(lambda _image, number: "unreachable" if number == 1 else "fail")
    session(host, lost_once, ended).run(tmp_path, SUITES, tmp_path / "room")
    assert seen == [("guest-2", "FAIL", False, 1), ("guest-4", "FAIL", True, 1)]


RERUNS: list[tuple[str, str, Script, str, list[Path]]] = [
    ("flaky", "dos2unix\n", lambda _image, number: "fail" if number == 1 else "pass", "flaky", [IMAGE, IMAGE]),
    (
        "new",
        "dos2unix\n",
        lambda image, _number: "pass" if image == BASE else "fail",
        "fails only with it",
        [IMAGE, IMAGE, BASE],
    ),
    (
        "old",
        "dos2unix\n",
        lambda _image, _number: "fail",
        "fails with and without the change",
        [IMAGE, IMAGE, BASE],
    ),
    (
        "a base without the package",
        "bash\n",
        lambda _image, _number: "fail",
        "cannot be told",
        [IMAGE, IMAGE, BASE],
    ),
]


@pytest.mark.parametrize(
    ("base_has", "script", "words", "boots"), [r[1:] for r in RERUNS], ids=[r[0] for r in RERUNS]
)
def test_a_failure_is_explained_by_two_more_runs_and_the_verdict_stays(
    tmp_path: Path, base_has: str, script: Script, words: str, boots: list[Path]
) -> None:
    host = PaperHost(base_has=base_has)
    (judged,) = session(host, PaperRunner(script)).run(tmp_path, SUITES[:1], tmp_path / "room", rerun_failed=True)
    assert judged.rerun is not None
    assert (judged.rerun.finding, judged.verdict.verdict) == (words, "FAIL")
    assert host.boots == boots


def test_a_passing_suite_is_not_run_again_and_a_broken_host_only_costs_the_explanation(tmp_path: Path) -> None:
    passing, failing = PaperHost(), PaperHost(broken=(2,))
    (judged,) = session(passing, PaperRunner(lambda *_: "pass")).run(
        tmp_path, SUITES[:1], tmp_path / "a", rerun_failed=True
    )
    assert (judged.rerun, len(passing.boots)) == (None, 1)
    (judged,) = session(failing, PaperRunner(lambda *_: "fail")).run(
        tmp_path, SUITES[:1], tmp_path / "b", rerun_failed=True
    )
    assert judged.rerun is not None
    assert judged.rerun.finding == "cannot be told"
    assert judged.verdict.verdict == "FAIL"


STATUSES = [("pass", "SUCCESS", None), ("fail", "UNSTABLE", None), ("nothing", "FAILURE", TestsError)]


@pytest.mark.parametrize(("word", "status", "error"), [*STATUSES, ("unreachable", "FAILURE", GaveUp)])
def test_the_run_s_status_and_its_error_name_who_is_to_blame(
    tmp_path: Path, word: str, status: str, error: type[Exception] | None
) -> None:
    judged = session(PaperHost(), PaperRunner(lambda *_: word)).run(tmp_path, SUITES, tmp_path / "room")
    assert status_of(judged) == status
    if error:
        assert type(failure_of(judged)) is error


def test_each_suite_has_a_directory_of_its_own_whatever_it_is_called() -> None:
    names = ["tests/tests.yml", "tests/tests_a b.yml", "tests/tests_a-b.yml", "/plans/basic", "..", "tests/tests.yml"]
    found = suite_directories([Suite(name) for name in names], Path("/r"))
    assert [path.name for path in found] == ["tests", "tests_a-b", "tests_a-b.2", "plans-basic", "suite", "tests.2"]
