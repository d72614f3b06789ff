"""What a clean-up takes: directories of runs and rows of the ledger that had their time, and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import time
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.changes.triage import Decision
from distgate.ledger.ledger import Ledger
from distgate.ledger.tables import CHANGES, OUTBOX, RUNS
from distgate.operations.audit import audit
from distgate.operations.clean_up import DAY, Freed, expired_copies, expired_runs, freed_sentence, remove_runs
from distgate.operations.ledger_queries import ledger_snapshot
from distgate.operations.prune_ledger import Forgotten, forget
from distgate.settings import Settings

NOW = time.time()


class LedgerSnapshot:
    """A ledger whose runs ended when a test wants them to have."""

    def __init__(self, url: str) -> None:
        self.ledger = Ledger(url)
        self.announcer = Announcer(self.ledger, Settings())

    def run(self, repo: str, days_ago: float, *, ended: bool = True, sent: bool = True) -> str:
        run_id, change = str(uuid.uuid4()), self.change(repo)
        self.ledger.claim(change, run_id, "http://x")
        self.announcer.stage(run_id, "package", "queued")
        if ended:
            self.announcer.close(run_id, "SUCCESS")
        self.age(change, days_ago, sent)
        return run_id

    def ignored(self, repo: str, days_ago: float) -> None:
        self.ledger.record(self.change(repo), Decision("ignored", "not watched", "package"))
        self.announcer.ignored(self.change(repo), "allpackages")
        self.age(self.change(repo), days_ago, True)

    def waiting(self, repo: str, days_ago: float) -> None:
        self.ledger.record(self.change(repo), Decision("queued", "all rules passed", "accepted"))
        self.age(self.change(repo), days_ago, True)

    def age(self, change: Change, days: float, sent: bool) -> None:
        then = NOW - days * DAY
        with self.ledger.transaction() as connection:
            connection.execute(CHANGES.update().where(CHANGES.c.key == change.key).values(accepted_at=then))
            mine = RUNS.c.key == change.key
            connection.execute(RUNS.update().where(mine).values(claimed_at=then, beat_at=then))
            connection.execute(RUNS.update().where(mine, RUNS.c.ended_at.is_not(None)).values(ended_at=then))
            unsent = OUTBOX.c.sent_at.is_(None)
            if sent:
                connection.execute(OUTBOX.update().where(unsent).values(sent_at=then))

    def left(self) -> list[str]:
        with self.ledger.transaction() as connection:
            keys = connection.execute(sa.select(CHANGES.c.key)).scalars()
            return sorted(key.partition("/")[2].partition("@")[0] for key in keys)

    @staticmethod
    def change(repo: str) -> Change:
        return Change(namespace="rpms", repo=repo, rev="a" * 40, branch="f44", username="jane")


@pytest.fixture
def kept(ledger_url: str) -> LedgerSnapshot:
    return LedgerSnapshot(ledger_url)


def test_rows_go_when_nothing_can_happen_to_their_change_any_more(kept: LedgerSnapshot, tmp_path: Path) -> None:
    old = kept.run("old", 200)
    kept.ignored("ignored", 200)
    kept.run("young", 10)
    kept.run("running", 200, ended=False)
    kept.waiting("waiting", 200)
    kept.run("retested", 200)
    kept.ledger.claim(kept.change("retested"), str(uuid.uuid4()), "http://x", again=True)
    unsent = kept.run("unsent", 200, sent=False)

    before = NOW - 180 * DAY
    dry = forget(kept.ledger, before, tmp_path / "archive", dry_run=True)
    assert dry == Forgotten(changes=2, runs=1, messages=4)
    assert not (tmp_path / "archive").exists()
    assert forget(kept.ledger, before, tmp_path / "archive") == dry
    assert kept.left() == ["retested", "running", "unsent", "waiting", "young"]
    assert kept.ledger.run(old) is None
    assert kept.ledger.run(unsent)
    assert forget(kept.ledger, before, tmp_path / "archive") == Forgotten()

    [file] = (tmp_path / "archive").iterdir()
    with gzip.open(file, "rt") as stream:
        lines = [json.loads(line) for line in stream]
    assert {line["change"]["key"].split("@")[0] for line in lines} == {"rpms/old", "rpms/ignored"}
    assert [len(line["runs"]) + len(line["messages"]) for line in lines if "old" in line["change"]["key"]] == [4]


def test_no_more_rows_go_at_once_than_asked_and_the_rest_the_next_time(kept: LedgerSnapshot) -> None:
    for number in range(7):
        kept.ignored(f"p{number}", 200)
    assert forget(kept.ledger, NOW - DAY, None, most=5).changes == 5
    assert forget(kept.ledger, NOW - DAY, None, most=5).changes == 2
    assert kept.left() == []


def test_the_books_balance_after_rows_have_gone(kept: LedgerSnapshot) -> None:
    kept.run("old", 200)
    kept.run("young", 1)
    balanced = audit(ledger_snapshot(kept.ledger), NOW, patience=600).balanced
    forget(kept.ledger, NOW - 180 * DAY, None)
    assert audit(ledger_snapshot(kept.ledger), NOW, patience=600).balanced is balanced


def test_directories_of_runs_go_by_the_end_of_their_run_and_others_stay(kept: LedgerSnapshot, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    old, young = kept.run("old", 40), kept.run("young", 3)
    running = kept.run("running", 40, ended=False)
    stray, new_stray = str(uuid.uuid4()), str(uuid.uuid4())
    for name in (old, young, running, stray, new_stray, "ledger-archive", "somebody's"):
        (artifacts / name / "build").mkdir(parents=True)
        (artifacts / name / "build" / "big").write_bytes(b"x" * 50_000)
    for name in (stray, "somebody's", "ledger-archive"):
        os.utime(artifacts / name, (NOW - 90 * DAY, NOW - 90 * DAY))
    (artifacts / str(uuid.uuid4())).symlink_to("/")

    found = expired_runs(kept.ledger, artifacts, NOW, 30 * DAY)
    assert {one.what for one in found} == {old, stray}
    assert all(one.size >= 50_000 for one in found)
    assert {one.why for one in found} == {
        "its run ended 40 days ago",
        "no run in the ledger, last changed 90 days ago",
    }
    remove_runs(artifacts, found)
    assert not (artifacts / old).exists()
    assert (artifacts / running / "build" / "big").exists()
    assert expired_runs(kept.ledger, artifacts, NOW, 30 * DAY) == []
    assert expired_runs(kept.ledger, tmp_path / "nowhere", NOW, 0) == []


def test_copies_of_runs_that_the_ledger_does_not_know_are_somebody_elses(kept: LedgerSnapshot) -> None:
    old, young = kept.run("old", 40), kept.run("young", 3)
    running, strange = kept.run("running", 50, ended=False), str(uuid.uuid4())
    found = expired_copies(kept.ledger, [old, young, running, strange, "lost+found"], NOW, 30 * DAY)
    assert found == [Freed("stored runs", old, "its run ended 40 days ago")]


def test_a_clean_up_says_what_it_freed() -> None:
    freed = [Freed("base images", "ab12", "old", 3 << 30), Freed("guests", "process 7", "its owner is gone")]
    assert freed_sentence(freed, False) == "1 base images, 1 guests: 3.0 GiB of disk were freed"
    assert freed_sentence([], True) == "nothing: 0 B of disk would be freed"
    assert freed[0].row() == {"kind": "base images", "what": "ab12", "size": "3.0 GiB", "why": "old"}
