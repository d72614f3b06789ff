"""Pushes of several commits, heads, forks and caps: the intake with a real ledger and a real Prefect server."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fedora_messaging.message import Message
from sqlalchemy import select

from distgate.changes.change import Change
from distgate.errors import InfrastructureError
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import CHANGES
from distgate.operations.ledger_queries import change_reports
from distgate.prefect_api import PrefectApi
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from services.intake import Intake

pytestmark = pytest.mark.lab
#: Long enough for the slowest machine; nobody waits for it.
SETTLES = 20.0


def new_revs(count: int) -> list[str]:
    return [uuid.uuid4().hex + f"{number:08x}" for number in range(count)]


@dataclass
class Door:
    """An intake whose messages a test hands in, and what stands in the ledger afterwards."""

    ledger_url: str
    api: str
    repo: str
    settings: Settings

    def __post_init__(self) -> None:
        self.open()

    def open(self, api: str = "", **settings: Any) -> None:
        """Start the intake anew, as after a kill: what was only in its memory is gone."""
        self.ledger = Ledger(self.ledger_url)
        own = self.settings.model_copy(update=settings)
        self.intake = Intake(self.ledger, PrefectApi(api or self.api, patience=0), own)

    def commits(self, *revs: str, **fields: Any) -> None:
        """What git.receive says of a push: one message per commit, oldest first."""
        for rev in revs:
            said = {"namespace": "rpms", "repo": self.repo, "rev": rev, "branch": "f41", "username": "jane"} | fields
            self.intake.handle(Message(topic="org.fedoraproject.prod.git.receive", body={"commit": said}))

    def head(self, rev: str, **repo: Any) -> None:
        """What pagure.git.receive says of a push: its head."""
        body = {"repo": {"namespace": "rpms", "name": self.repo} | repo, "branch": "f41", "end_commit": rev}
        self.intake.handle(Message(topic="org.fedoraproject.prod.pagure.git.receive", body=body | {"agent": "jane"}))

    def settle(self) -> None:
        """Let the time pass that commits wait for, by the ledger's clock, and the intake.act_on_settled."""
        with self.ledger.transaction() as connection:
            connection.execute(CHANGES.update().values(accepted_at=CHANGES.c.accepted_at - 2 * SETTLES))
        self.intake.act_on_settled()
        assert "settling" not in self.rules().values()

    def rules(self) -> dict[str, str]:
        """The rule that stands about each commit."""
        with self.ledger.transaction() as connection:
            rows = connection.execute(select(CHANGES.c.key, CHANGES.c.rule)).all()
        return {row.key.rpartition("#")[2]: row.rule for row in rows}

    def offered(self) -> set[str]:
        """The commits that Prefect was told of."""
        query = select(CHANGES.c.key).where(CHANGES.c.offered_at.is_not(None))
        with self.ledger.transaction() as connection:
            return {key.rpartition("#")[2] for key in connection.execute(query).scalars()}

    def events(self) -> list[str]:
        """The commits that Prefect knows events of."""
        labels = {"labels": {"distgate.repo": [self.repo]}}
        wish = {"filter": {"resource": labels, "event": {"name": ["distgate.change.accepted"]}}}
        answer = httpx.post(f"{self.api}/events/filter", json=wish, timeout=30, trust_env=False)
        return [event["payload"]["change"]["rev"] for event in answer.json()["events"]]

    def said_ignored(self) -> list[str]:
        """The commits for which package.ignored was said, each as often as it was."""
        letters = self.ledger.unsent(1000)
        assert all(letter.topic.endswith(".package.ignored") for letter in letters)
        return sorted(letter.body["rev"] for letter in letters)


@pytest.fixture
def door(ledger_url: str, prefect_server: PrefectServer) -> Door:
    repo = f"p{uuid.uuid4().hex[:12]}"
    return Door(ledger_url, prefect_server.api_url, repo, Settings(push_settles=SETTLES))


def test_a_push_of_several_commits_is_tested_at_its_head(door: Door) -> None:
    old, middle, head = new_revs(3)
    door.commits(old, middle, head)
    assert set(door.rules().values()) == {"settling"}
    door.settle()
    assert door.rules() == {old: "superseded", middle: "superseded", head: "accepted"}
    assert door.said_ignored() == sorted([old, middle])
    assert wait_for("the event", lambda: door.events() or None, 30) == [head]


def test_the_history_of_a_new_branch_is_one_run_seen_or_not(door: Door) -> None:
    revs = new_revs(60)
    door.commits(*revs, seen=True)
    door.settle()
    assert [rev for rev, rule in door.rules().items() if rule == "accepted"] == revs[-1:]
    assert door.said_ignored() == sorted(revs[:-1])
    assert door.offered() == {revs[-1]}


@pytest.mark.parametrize("place", range(4), ids=["first", "second", "third", "last"])
def test_a_head_that_the_push_names_is_the_one_wherever_its_message_comes(door: Door, place: int) -> None:
    revs = new_revs(3)
    for number in range(4):
        if number == place:
            door.head(revs[2])
        if number < 3:
            door.commits(revs[number])
    assert door.rules()[revs[2]] == "accepted"
    door.settle()
    assert door.rules() == {revs[0]: "superseded", revs[1]: "superseded", revs[2]: "accepted"}
    assert door.offered() == {revs[2]}


def test_two_pushes_one_after_the_other_are_two_runs(door: Door) -> None:
    one, other = new_revs(2)
    door.commits(one)
    door.settle()
    door.commits(other)
    door.settle()
    assert door.said_ignored() == []
    assert door.offered() == {one, other}


def test_heads_of_two_pushes_in_the_same_moment_are_two_runs(door: Door) -> None:
    one, other = new_revs(2)
    door.head(one)
    door.commits(one, other)
    door.head(other)
    door.settle()
    assert door.said_ignored() == []
    assert door.offered() == {one, other}


def test_other_branches_and_packages_make_nothing_old(door: Door) -> None:
    door.open(branches=("f*",))
    for fields in ({}, {"branch": "f42"}, {"branch": "f41#2"}, {"repo": door.repo.upper()}):
        door.commits(*new_revs(1), **fields)
    door.settle()
    assert set(door.rules().values()) == {"accepted"}


def test_a_forks_push_makes_nothing_old_and_its_commit_is_tested_once_it_is_merged(door: Door) -> None:
    own, theirs = new_revs(2)
    door.commits(own)
    door.head(theirs, fullname=f"forks/joe/rpms/{door.repo}")
    door.settle()
    assert door.rules() == {own: "accepted", theirs: "fork"}
    door.head(theirs)
    door.commits(theirs)
    door.settle()
    assert door.rules() == {own: "accepted", theirs: "accepted"}
    assert door.said_ignored() == [theirs]
    assert door.offered() == {own, theirs}


def test_a_fork_that_pushes_what_we_test_changes_nothing(door: Door) -> None:
    [rev] = new_revs(1)
    door.head(rev)
    door.head(rev, fullname=f"forks/joe/rpms/{door.repo}")
    door.settle()
    assert door.rules() == {rev: "accepted"}
    assert door.said_ignored() == []


def test_a_branch_that_is_reset_to_a_commit_that_was_passed_over_is_tested_there(door: Door) -> None:
    old, head = new_revs(2)
    door.commits(old, head)
    door.settle()
    door.head(old)
    assert door.rules() == {old: "accepted", head: "accepted"}
    assert door.offered() == {old, head}


def test_an_intake_that_died_while_commits_waited_decides_about_them_when_it_is_back(door: Door) -> None:
    old, head = new_revs(2)
    door.commits(old, head)
    assert door.ledger.unclaimed(-1) == []
    door.open()
    door.settle()
    assert door.rules() == {old: "superseded", head: "accepted"}
    assert door.offered() == {head}


def test_without_waiting_every_commit_is_tested(door: Door) -> None:
    door.open(push_settles=0)
    revs = new_revs(3)
    door.commits(*revs)
    assert door.offered() == set(revs)


def test_what_the_caps_have_no_room_for_is_shed_and_said_once(door: Door) -> None:
    door.open(hourly_cap_per_package=2, hourly_cap=3)
    revs, others = new_revs(3), new_revs(2)
    for rev in revs:
        door.head(rev)
        door.head(rev)
    for rev in others:
        door.commits(rev, repo=f"{door.repo}-two")
        door.settle()
    counts = door.ledger.counts()
    assert (counts["queued"], counts["shed"]) == (3, 2)
    assert door.said_ignored() == sorted([revs[2], others[1]])
    assert door.rules() == {**dict.fromkeys([*revs[:2], others[0]], "accepted"), revs[2]: "shed", others[1]: "shed"}


def test_nothing_is_taken_from_the_bus_while_prefect_is_away_and_nothing_is_lost(door: Door) -> None:
    one, other = new_revs(2)
    door.open(api="http://127.0.0.1:9/api")
    with pytest.raises(InfrastructureError):
        door.commits(one)
    with pytest.raises(InfrastructureError):
        door.head(other)
    door.open()
    door.commits(one)
    door.head(other)
    door.settle()
    assert door.rules()[other] == "accepted"
    assert door.offered() == {rev for rev, rule in door.rules().items() if rule == "accepted"}


@pytest.mark.parametrize("topic", ["git.receive", "pagure.git.receive"])
def test_a_message_that_is_tried_again_until_prefect_answers_is_one_message(door: Door, topic: str) -> None:
    (rev,) = new_revs(1)
    commit = {"namespace": "rpms", "repo": door.repo, "rev": rev, "branch": "f41", "username": "jane"}
    head = {"repo": {"namespace": "rpms", "name": door.repo}, "branch": "f41", "end_commit": rev, "agent": "jane"}
    body = {"commit": commit} if topic == "git.receive" else head
    message = Message(topic=f"org.fedoraproject.prod.{topic}", body=body)
    door.open(api="http://127.0.0.1:9/api")
    for _ in range(3):
        with pytest.raises(InfrastructureError):
            door.intake.handle(message)
    (known,) = change_reports(door.ledger, door.repo, rev)
    assert known.seen == 1


def test_a_commit_that_was_started_by_hand_while_it_waited_is_left_to_its_run(door: Door) -> None:
    [rev] = new_revs(1)
    door.commits(rev)
    change = Change(namespace="rpms", repo=door.repo, rev=rev, branch="f41", username="jane")
    assert door.ledger.claim(change, "run-1", "http://ui/run") is not None
    assert door.intake.act_on_settled() == 0
    door.head(rev)
    assert door.intake.act_on_settled() == 0
    assert door.events() == []
