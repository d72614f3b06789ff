"""A site in small on a bad day: twenty commits, two hosts of which one dies, and a Prefect server that restarts."""

from __future__ import annotations

import json
import signal
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from commits import ALL, FAILURE, PREFIX, guests, push_broken, status_of

from distgate.bus.queues import Subscription
from distgate.files import tail_of
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import Run
from distgate.process import run
from distgate.waiting import Deadline, wait_for
from lab import teardown
from lab.dist_git.demo_package import NAME, push_change
from lab.servers import supervisor
from lab.servers.prefect_server import SERVER
from lab.sites import rehearsal
from lab.world import World

pytestmark = [pytest.mark.rehearsal, pytest.mark.lab, pytest.mark.guest, pytest.mark.timeout(1800)]

#: Commits whose package does not build, and healthy ones that go through a guest.
FAILING, HEALTHY = 18, 2
DONE = 1200.0
ABORTED = "complete ABORTED"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[World]:
    """The small site, whose every worker is fit."""
    state = tmp_path_factory.mktemp("site").resolve()
    try:
        yield rehearsal.start(state, cache, print)
    finally:
        teardown.down(state, print)


@dataclass
class Day:
    """What was pushed, and what was read about each commit from the broker."""

    site: World
    bus: Subscription
    pushed: dict[str, str] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    deadline: Deadline = field(default_factory=lambda: Deadline(DONE))

    def push_healthy(self) -> None:
        self.pushed[push_change(self.site.demo_repository)] = NAME

    def push_failing(self, name: str) -> None:
        self.pushed[push_broken(self.site, name)] = name

    def read(self) -> None:
        """Read what waits on the bus; what came before, by its ID, is not counted again."""
        while delivery := self.bus.receive(0.5):
            if delivery.message_id not in self.seen:
                self.seen.add(delivery.message_id)
                line = f"{delivery.topic.removeprefix(PREFIX)} {delivery.body['status']}"
                self.said.setdefault(delivery.body["rev"], []).append(line)

    def ended(self, count: int = 1) -> list[str]:
        """The pushed commits about which ``count`` last words were said."""
        self.read()
        return [rev for rev in self.pushed if self._last_words(rev) >= count]

    def aborted(self) -> list[str]:
        return [rev for rev in self.pushed if ABORTED in self.said.get(rev, [])]

    def until_ended(self, count: int) -> None:
        wait_for(
            f"{count} commits to have a verdict",
            lambda: len(self.ended()) >= count,
            self.deadline,
            evidence=self.story,
        )

    def runs(self, rev: str) -> list[Run]:
        """The runs that held a commit, by the ledger."""
        return Ledger(self.site.ledger_url).runs_of(f"rpms/{self.pushed[rev]}@f41#{rev}")

    def retry(self, rev: str) -> None:
        """What an operator does."""
        (one,) = self.runs(rev)
        run(["prefect", "flow-run", "retry", one.run_id], timeout=120, env=self.site.environment)

    def story(self) -> str:
        logs = "\n".join(self.log(host)[-3000:] for host in rehearsal.HOSTS)
        return f"{json.dumps(self.said, indent=1)}\n{logs}"

    def log(self, host: str) -> str:
        """What a host's worker said."""
        return tail_of(self.site.state / f"logs/{rehearsal.worker_of(host)}.log", 1 << 20)

    def _last_words(self, rev: str) -> int:
        return sum(line.split()[0] == "complete" for line in self.said.get(rev, []))


@pytest.fixture(scope="module")
def day(site: World) -> Iterator[Day]:
    """The day, when it is over: every commit that a dead host took along was retried, as an operator does."""
    with Subscription(site.amqp_url, site.exchange, [f"{PREFIX}#"], queue=f"test.{uuid.uuid4().hex[:8]}") as bus:
        day = Day(site, bus)
        for number in range(FAILING + HEALTHY):
            if number % (FAILING // HEALTHY + 1) == 0:
                day.push_healthy()
            else:
                day.push_failing(f"broken{number}")
        day.until_ended(4)
        lose_host(day, "two")
        day.until_ended(10)
        restart_server(day)
        supervisor.release(site.state, rehearsal.worker_of("two"))
        day.until_ended(FAILING + HEALTHY)
        retry_aborted(day)
        yield day


def lose_host(day: Day, host: str) -> None:
    """Kill a worker and its runs at a moment when one of them has a change in hand, and keep it away."""
    state, name, ledger = day.site.state, rehearsal.worker_of(host), Ledger(day.site.ledger_url)

    def at_work() -> bool:
        claimed = [ledger.run(run_id) for run_id in rehearsal.runs_on(day.site, host)]
        return any(one is not None and not one.ended for one in claimed)

    wait_for("the host to be at work", at_work, day.deadline, evidence=day.story)
    supervisor.keep_ended(state, name)
    assert supervisor.kill(state, name, signal.SIGKILL)
    for process in rehearsal.runs_on(day.site, host).values():
        process.signal(signal.SIGKILL)


def restart_server(day: Day) -> None:
    """Kill Prefect's API without a word; the lab starts it again, as systemd would."""
    assert supervisor.kill(day.site.state, SERVER, signal.SIGKILL)
    supervisor.wait_healthy(day.site.state, [SERVER], Deadline(240))


def retry_aborted(day: Day) -> None:
    lost = day.aborted()
    for rev in lost:
        day.retry(rev)
    wait_for("the retries to end", lambda: set(lost) <= set(day.ended(2)), day.deadline, evidence=day.story)


def test_every_commit_has_its_verdict(day: Day) -> None:
    expected = {rev: status_of(ALL) if repo == NAME else FAILURE for rev, repo in day.pushed.items()}
    last = {rev: said[said.index(ABORTED) + 1 :] if ABORTED in said else said for rev, said in day.said.items()}
    assert last == expected


def test_what_died_with_its_host_said_so_and_no_other_run_did(day: Day) -> None:
    assert 1 <= len(day.aborted()) <= rehearsal.RUNS
    assert all(sum(line == ABORTED for line in said) <= 1 for said in day.said.values())


def test_each_commit_had_one_run(day: Day) -> None:
    # Others, which never began because their worker had died with them in hand, held no change and said nothing.
    told = {rev: {run.run_id for run in day.runs(rev)} for rev in day.pushed}
    assert {rev: len(found) for rev, found in told.items()} == dict.fromkeys(day.pushed, 1)


def test_both_hosts_took_runs(day: Day) -> None:
    for host in rehearsal.HOSTS:
        assert "submitted to infrastructure" in day.log(host)


def test_the_books_balance_on_postgresql(day: Day) -> None:
    wait_for("every message to be confirmed", lambda: not Ledger(day.site.ledger_url).unsent(), 60)
    words = [sys.executable, "-m", "distgate.cli", "audit", "--json"]
    said = json.loads(run(words, timeout=120, env=day.site.environment, split_errors=True).output)
    assert said["problems"] == []
    assert said["balanced"]


def test_no_guest_is_left(day: Day) -> None:
    wait_for("the guests to be gone", lambda: not guests(day.site), 60)
    assert [rehearsal.runs_on(day.site, host) for host in rehearsal.HOSTS] == [{}, {}]
