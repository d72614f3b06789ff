"""The reporter as a process of its own: killed, refused, kept waiting, it tells everybody everything, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from report_stand_ins import ROOM, TOKEN, MailStandIn, StandIn, mail_stand_in, stand_in

from distgate.bus.announce import Announcer
from distgate.bus.queues import Subscription
from distgate.changes.change import Change
from distgate.files import tail_of
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import RunFacts
from distgate.process import run
from distgate.reports.outbox import ChannelState, ReportOutbox, channel_states
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.rabbitmq import EXCHANGE, Broker
from lab.sites.entrance import start_service

SECONDS = 60.0
#: What does not depend on the database is shown on one of them.
sqlite = pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
DISTGATE = (sys.executable, "-m", "distgate.cli")
STAGES = [
    ("package", "queued"),
    ("package", "running"),
    ("package", "complete"),
    ("image", "running"),
    ("image.test.smoke", "complete"),
]


class Desk:
    """A ledger with channels beside it, and the reporters that are started for them."""

    def __init__(self, url: str, scratch: Path, server: StandIn, post: MailStandIn, channels: list[str]) -> None:
        self.url, self.scratch = url, scratch
        self.server, self.post, self.channels = server, post, channels
        self.ledger = Ledger(self.url)
        (scratch / "secret").write_text(TOKEN)
        for name in channels:
            ReportOutbox(self.ledger, name)

    def environment(self) -> dict[str, str]:
        secret = str(self.scratch / "secret")
        return {
            "DISTGATE_LEDGER_URL": self.url,
            "DISTGATE_REPORTS": json.dumps(self.channels),
            "DISTGATE_RESULTSDB_URL": f"{self.server.url}/api/v2.0",
            "DISTGATE_RESULTSDB_SECRET": secret,
            "DISTGATE_DIST_GIT_FLAGS_URL": self.server.url,
            "DISTGATE_DIST_GIT_FLAGS_TOKEN": secret,
            "DISTGATE_MATRIX_URL": self.server.url,
            "DISTGATE_MATRIX_ROOM": ROOM,
            "DISTGATE_MATRIX_TOKEN": secret,
            "DISTGATE_MAIL_SERVER": self.post.address,
            "DISTGATE_MAIL_FROM": "ci@example.org",
            "DISTGATE_MAIL_TO": '["all@example.org"]',
            "DISTGATE_REPORT_EMAIL": "team@example.org",
            "DISTGATE_REPORT_DOCS": "https://example.org/docs",
        }

    @contextmanager
    def reporter(self, **other: str) -> Iterator[subprocess.Popen[bytes]]:
        process = start_service("reporter", self.environment() | other, self.scratch / "reporter.log")
        try:
            yield process
            assert process.poll() is None, self.log()
        finally:
            process.terminate()
            process.wait(SECONDS)

    def log(self) -> str:
        return tail_of(self.scratch / "reporter.log", 100_000)

    def wait(self, condition: str, true: Callable[[], bool]) -> None:
        wait_for(condition, true, SECONDS, evidence=self.log)

    def write(self, number: int, status: str = "SUCCESS", *, topic: str = "org.centos.prod") -> str:
        """A run with all its messages; returns its commit."""
        change = Change(namespace="rpms", repo="bash", rev=f"{number:040x}", branch="f41", username="jane")
        announcer = Announcer(self.ledger, Settings(main_topic=topic))
        name = str(uuid.uuid4())
        self.ledger.claim(change, name, f"http://ui/{name}")
        for suffix, state in STAGES:
            if (suffix, state) == ("package", "complete"):
                self.ledger.record_facts(
                    name, RunFacts(nvr=f"bash-5.{number}-1.fc41", koji_task=f"http://hub {number + 1}")
                )
            announcer.stage(name, suffix, state)
        self.ledger.record_facts(name, RunFacts(blame="package", sentence=f"bash f41: commit {number}"))
        announcer.close(name, status)  # type: ignore[arg-type]
        return change.rev

    def idle(self) -> bool:
        return all(one.pending == 0 for one in channel_states(self.ledger))


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def desk(ledger_url: str, tmp_path: Path, server: StandIn) -> Iterator[Desk]:
    with mail_stand_in() as post:
        yield Desk(ledger_url, tmp_path, server, post, ["resultsdb", "dist-git-flag", "matrix", "mail"])


def test_everybody_is_told_and_news_are_told_of_changes_alone(desk: Desk) -> None:
    ends = ["SUCCESS", "UNSTABLE", "FAILURE", "SUCCESS"]
    with desk.reporter():
        revs = [desk.write(number, status) for number, status in enumerate(ends)]
        desk.wait("everybody to be told", desk.idle)
    ends_told = [one["outcome"] for one in desk.server.results if one["testcase"]["name"].endswith("pipeline")]
    assert ends_told == ["INFO", "FAILED", "FAILED", "INFO"]
    assert {rev: desk_flag(desk, rev) for rev in revs} == dict(
        zip(revs, ["success", "failure", "failure", "success"], strict=True)
    )
    told = [said["body"].splitlines()[0] for said in desk.server.said.values()]
    assert told == [mail["Subject"] for mail, _ in desk.post.mails]
    assert [" ".join(line.split()[2:4]) for line in told] == ["fails (allpackages,", "works again"]
    assert TOKEN not in desk.log()


def desk_flag(desk: Desk, rev: str) -> str:
    (flag,) = [flag for (flagged, _), flag in desk.server.flags.items() if flagged == rev]
    return flag["status"]


@sqlite
def test_a_reporter_that_is_killed_in_the_middle_loses_and_doubles_nothing(desk: Desk) -> None:
    runs = 12
    for number in range(runs):
        desk.write(number, "FAILURE" if number % 2 else "SUCCESS")
    # Answers that are lost on the way: what was done is not known here.
    desk.server.faults = [None, None, None]
    for kills in range(1, 4):
        before = len(desk.server.requests)
        process = start_service("reporter", desk.environment(), desk.scratch / "reporter.log")
        desk.wait(f"work before kill {kills}", lambda seen=before: len(desk.server.requests) > seen + 8)  # type: ignore[misc]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(SECONDS)
    with desk.reporter():
        desk.wait("the rest to be told", desk.idle)
    check_all_told_once(desk, runs)


def check_all_told_once(desk: Desk, runs: int) -> None:
    """Of ``runs`` runs, which failed in turns, everybody was told; nobody twice, and nothing out of order."""
    results = [(one["data"]["dist_git_commit"], one["testcase"]["name"]) for one in desk.server.results]
    assert len(results) == len(set(results)) == 2 * runs
    ends = ["failure"] * (runs // 2) + ["success"] * (runs // 2)
    assert sorted(flag["status"] for flag in desk.server.flags.values()) == ends
    assert len(desk.server.said) == runs - 1
    for rev in {flag["rev"] for flag in desk.server.flagged}:
        order = [flag["status"] == "pending" for flag in desk.server.flagged if flag["rev"] == rev]
        assert order == sorted(order, reverse=True), "pending was never said after the end"


def test_a_second_reporter_waits_and_goes_on_in_the_place_of_the_first_when_that_is_killed(desk: Desk) -> None:
    runs = 8
    first = start_service("reporter", desk.environment(), desk.scratch / "first.log")
    desk.write(0)
    desk.wait("the first to work", lambda: len(desk.server.requests) > 0)
    with desk.reporter():
        desk.wait("the second to wait", lambda: "another reporter works for this ledger (reporter on " in desk.log())
        for number in range(1, runs):
            desk.write(number, "FAILURE" if number % 2 else "SUCCESS")
        seen = len(desk.server.requests)
        desk.wait("the first to be in the middle", lambda: len(desk.server.requests) > seen + 8)
        assert "was told of" not in desk.log()
        first.send_signal(signal.SIGKILL)
        first.wait(SECONDS)
        desk.wait("the rest to be told", desk.idle)
        assert "this reporter is the leader" in desk.log()
        assert "was told of" in desk.log()
    check_all_told_once(desk, runs)


@sqlite
def test_a_channel_that_is_down_holds_up_nobody_and_is_told_later(desk: Desk) -> None:
    desk.server.down = True
    with desk.reporter():
        desk.write(1, "FAILURE")
        desk.wait("the mail", lambda: len(desk.post.mails) == 1)
        desk.wait("a failed try to be written down", lambda: "503" in _state(desk, "resultsdb").error)
        assert _state(desk, "resultsdb").delivered == 0
        desk.server.down = False
        desk.wait("everybody to be told", desk.idle)
    assert len(desk.server.results) == 2
    assert _state(desk, "resultsdb").error == ""


@sqlite
def test_what_is_refused_for_good_is_shown_with_its_words(desk: Desk) -> None:
    desk.server.commits = set()
    with desk.reporter():
        desk.write(1)
        desk.wait("everybody to be told", desk.idle)
    shown = run([*DISTGATE, "reports", "--json"], timeout=60, env=desk.environment(), split_errors=True).output
    channels = {one["channel"]: one for one in json.loads(shown)["channels"]}
    refused = channels["dist-git-flag"]["refused"]
    assert refused
    assert "404" in refused[0]["error"]
    assert "Commit not found" in refused[0]["error"]
    assert channels["resultsdb"]["refused"] == []
    lines = run([*DISTGATE, "reports"], timeout=60, env=desk.environment(), split_errors=True).output
    assert "Commit not found" in lines
    desk.server.commits = None
    again = run([*DISTGATE, "reports", "--again", "dist-git-flag"], timeout=60, env=desk.environment())
    assert f"{len(refused)} reports to dist-git-flag are tried again" in again.output
    with desk.reporter():
        desk.wait("the flag", lambda: len(desk.server.flags) == 1)


@sqlite
def test_a_secret_that_was_wrong_loses_nothing_once_it_is_right(desk: Desk) -> None:
    (desk.scratch / "secret").write_text("expired")
    with desk.reporter():
        desk.write(1)
        desk.wait("a refusal of the account", lambda: "401" in _state(desk, "resultsdb").error)
        (desk.scratch / "secret").write_text(TOKEN)
        desk.wait("everybody to be told", desk.idle)
    assert len(desk.server.results) == 2
    assert not _state(desk, "resultsdb").refused


def _state(desk: Desk, channel: str) -> ChannelState:
    return next(one for one in channel_states(desk.ledger) if one.name == channel)


@sqlite
@pytest.mark.lab
def test_the_dialect_of_builds_is_on_the_bus_beside_our_own_messages(
    broker: Broker, ledger_url: str, tmp_path: Path, server: StandIn
) -> None:
    topic = f"org.t{uuid.uuid4().hex[:8]}.stage"
    with mail_stand_in() as post, Subscription(broker.url, EXCHANGE, [f"{topic}.#"]) as bus:
        desk = Desk(ledger_url, tmp_path, server, post, ["ci-messages"])
        own = {"DISTGATE_AMQP_URL": broker.url, "DISTGATE_EXCHANGE": EXCHANGE}
        with desk.reporter(**own):
            desk.write(1, "UNSTABLE", topic=topic)
            found = [bus.receive(SECONDS) for _ in range(3)]
            desk.wait("everything to be told", desk.idle)
    assert [one.topic.removeprefix(f"{topic}.ci.koji-build.test.") for one in found if one] == [
        "queued",
        "running",
        "complete",
    ]
    last = found[-1]
    assert last is not None
    assert (last.body["test"]["result"], last.body["artifact"]["nvr"]) == ("failed", "bash-5.1-1.fc41")
    assert last.headers["fedora_messaging_schema"] == "distgate.ci_test.BuildTestCompleteV1"
