"""The audit against ledgers that are in order, and against ledgers that were cooked on purpose."""

import shutil
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from distgate.bus.announce import Announcer
from distgate.bus.order import SentMessage, faults_of
from distgate.changes.change import Change
from distgate.changes.triage import Decision
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import note_dead, reject, rejections, requeued
from distgate.operations.audit import Audit, audit
from distgate.operations.ledger_queries import ledger_snapshot
from distgate.pipelines import Pipeline, Status
from distgate.settings import Settings

PREFIX = "org.centos.prod.ci.pipeline.allpackages."
STATES = ("queued", "running", "complete")
PACKAGE, IMAGE, SMOKE, TESTS = (
    [f"{stage}.{state}" for state in STATES]
    for stage in ("package", "image", "image.test.smoke", "package.test.functional")
)
WHOLE = [*PACKAGE, *IMAGE, *SMOKE, *TESTS, "complete"]


def change_of(repo: str, branch: str = "f41") -> Change:
    return Change(namespace="rpms", repo=repo, rev="ab" * 20, branch=branch, username="jane")


def accept(ledger: Ledger, repo: str, times: int = 1) -> Change:
    change = change_of(repo)
    for _ in range(times):
        ledger.record(change, Decision("queued", "is tested", "accepted", change=change))
    ledger.offered(change.key)
    return change


def work(ledger: Ledger, repo: str, run: str, upto: str = "complete", status: Status = "SUCCESS") -> None:
    """A run that ends ``status`` with the stage of ``upto``, all messages confirmed."""
    announcer = Announcer(ledger, Settings())
    ledger.claim(accept(ledger, repo), run, f"http://ui/{run}")
    for name in WHOLE:
        suffix, _, state = name.rpartition(".")
        announcer.stage(run, suffix, state, status if name in (upto, "complete") and state == "complete" else None)
        if name == upto:
            break
    if status != "SUCCESS":
        announcer.close(run, status)
    confirm(ledger)


def ignore(ledger: Ledger, repo: str) -> None:
    change = change_of(repo, "epel9")
    ledger.record(change, Decision("ignored", "not watched", "branch", change=change))
    Announcer(ledger, Settings()).ignored(change)
    confirm(ledger)


def confirm(ledger: Ledger) -> None:
    for letter in ledger.unsent(1000):
        ledger.sent(letter.seq)


def cook(ledger: Ledger, sql: str) -> None:
    with ledger.transaction() as connection:
        connection.execute(sa.text(sql))


def look(ledger: Ledger, later: float = 0.0, since: float = 0.0) -> Audit:
    return audit(ledger_snapshot(ledger, since), time.time() + later)


def problems(ledger: Ledger, later: float = 0.0) -> list[str]:
    return [f"{one.about}: {one.problem}" for one in look(ledger, later).problems]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with one of everything."""
    path = tmp_path_factory.mktemp("audit") / "ledger.db"
    ledger = Ledger(f"sqlite:///{path}")
    work(ledger, "good", "run-good")
    work(ledger, "shaky", "run-shaky", "package.test.functional.complete", "UNSTABLE")
    work(ledger, "bad", "run-bad", "package.complete", "FAILURE")
    work(ledger, "gone", "run-gone", "image.queued", "ABORTED")
    work(ledger, "busy", "run-busy", "image.running")
    accept(ledger, "patient", times=3)
    ignore(ledger, "other")
    for _ in range(2):
        reject(ledger, "id-1", "org.fedoraproject.prod.git.receive", "the message has no commit")
    ledger.close()
    return path


@pytest.fixture
def honest(template: Path, tmp_path: Path) -> Ledger:
    """A copy of it for one test."""
    return Ledger(f"sqlite:///{shutil.copy(template, tmp_path / 'honest.db')}")


def test_an_honest_ledger_balances_and_the_counts_add_up(honest: Ledger) -> None:
    found = look(honest)
    assert found.problems == ()
    assert found.balanced
    assert found.triggers == {
        "total": 11,
        "run": 5,
        "waiting": 1,
        "ignored": 1,
        "shed": 0,
        "rejected": 2,
        "duplicate": 2,
    }
    assert found.runs == {
        "total": 5,
        "running": 1,
        "SUCCESS": 1,
        "UNSTABLE": 1,
        "FAILURE": 1,
        "ABORTED": 1,
    }
    assert found.messages["confirmed"] == found.messages["total"] == 13 + 13 + 4 + 6 + 5 + 1
    assert found.as_json()["problems"] == []


def test_an_empty_ledger_balances(ledger: Ledger) -> None:
    assert look(ledger).balanced
    assert look(ledger).triggers["total"] == 0


def test_a_retry_after_the_last_word_is_one_run_more(honest: Ledger) -> None:
    honest.claim(change_of("bad"), "run-bad", "http://ui/run-bad")
    assert look(honest).balanced
    assert (look(honest).runs["total"], look(honest).runs["running"]) == (6, 2)
    Announcer(honest, Settings()).close("run-bad", "ABORTED")
    assert look(honest).balanced
    assert (look(honest).runs["FAILURE"], look(honest).runs["ABORTED"]) == (1, 2)


def test_what_waits_for_the_broker_is_no_problem_and_is_told_with_its_age(honest: Ledger) -> None:
    cook(
        honest,
        "UPDATE outbox SET sent_at = NULL, tries = 3, error = 'broker away'"
        " WHERE run_id = 'run-good' AND topic LIKE '%allpackages.complete'",
    )
    found = look(honest, later=100)
    assert found.balanced
    (waiting,) = found.as_json()["queued"]
    assert (waiting["topic"], waiting["tries"], waiting["error"]) == (f"{PREFIX}complete", 3, "broker away")
    assert found.messages["oldest_queued_seconds"] >= 100
    assert waiting["age_seconds"] >= 100


def test_what_was_rejected_counts_until_it_is_put_back_and_again_when_it_is_refused_again(honest: Ledger) -> None:
    requeued(honest, ["id-1"])
    assert look(honest).triggers["rejected"] == 0
    reject(honest, "id-1", "topic", "still no commit")
    assert look(honest).triggers["rejected"] == 3
    assert [note_dead(honest, name, "topic", "no JSON", 2) for name in ("id-1", "id-2")] == [False, True]
    assert [(one.message_id, one.reason, one.seen) for one in rejections(honest)] == [
        ("id-1", "still no commit", 3),
        ("id-2", "no JSON", 2),
    ]


def test_an_audit_since_leaves_out_what_began_before(honest: Ledger) -> None:
    cook(honest, "UPDATE changes SET accepted_at = 100 WHERE key LIKE '%bad%'")
    cook(honest, "UPDATE runs SET claimed_at = 100, status = 'SUCCESS' WHERE run_id = 'run-bad'")
    assert not look(honest).balanced
    found = look(honest, since=1000)
    assert found.balanced
    assert (found.triggers["run"], found.runs["FAILURE"]) == (4, 0)
    assert look(honest, since=time.time() + 10).triggers["total"] == 0


LATE = 3600.0
OUTBOX_COPY = """INSERT INTO outbox (message_id, run_id, topic, attempt, body, created_at, tries, sent_at)
 SELECT 'copy', {run}, {topic}, attempt, body, created_at, 0, sent_at FROM outbox
 WHERE run_id = 'run-good' AND topic = 'org.centos.prod.ci.pipeline.allpackages.complete'"""

# what was done to the honest ledger, how much later the audit looks, a part of the only problem
COOKED: list[tuple[str, float, str]] = [
    ("UPDATE changes SET decision = 'lost' WHERE key LIKE '%patient%'", 0, "decision 'lost' is none"),
    ("UPDATE changes SET run_id = 'ghost' WHERE key LIKE '%patient%'", 0, "run ghost holds it"),
    ("UPDATE changes SET offered_at = NULL WHERE key LIKE '%patient%'", LATE, "Prefect was not told"),
    (
        "UPDATE changes SET offered_at = 1 WHERE key LIKE '%patient%'",
        0,
        "no run has claimed it, and none is looked for",
    ),
    ("DELETE FROM outbox WHERE topic LIKE '%ignored'", LATE, "it was ignored, and no message says so"),
    ("DELETE FROM outbox WHERE run_id = 'run-good' AND topic LIKE '%allpackages.complete'", 0, "has no verdict"),
    ("UPDATE runs SET ended_at = NULL WHERE run_id = 'run-good'", 0, "has its verdict and is not ended"),
    ("UPDATE runs SET status = 'SUCCESS' WHERE run_id = 'run-bad'", 0, "says FAILURE, and the ledger SUCCESS"),
    ("UPDATE runs SET ended_at = 1 WHERE run_id = 'run-busy'", 0, "run-busy: it ended and has no verdict"),
    ("UPDATE runs SET beat_at = 1 WHERE run_id = 'run-busy'", 0, "no heartbeat"),
    ("UPDATE runs SET attempt = 2 WHERE run_id = 'run-busy'", 0, "run-busy: it ended and has no verdict"),
    ("DELETE FROM outbox WHERE run_id = 'run-good' AND topic LIKE '%smoke%'", 0, "without a message of image.test"),
    ("DELETE FROM outbox WHERE run_id = 'run-good' AND topic LIKE '%image.running'", 0, "image.running is missing"),
    ("DELETE FROM outbox WHERE run_id = 'run-good' AND topic LIKE '%al.queued'", 0, "functional.queued is missing"),
    (
        "UPDATE outbox SET attempt = 2 WHERE run_id = 'run-busy' AND topic LIKE '%image.running'",
        0,
        "messages of an attempt that never began",
    ),
    (
        "UPDATE outbox SET seq = 1000 WHERE run_id = 'run-busy' AND topic LIKE '%package.running'",
        0,
        "package.running was sent after image.running: out of order",
    ),
    (
        "UPDATE outbox SET sent_at = NULL WHERE run_id = 'run-good' AND topic LIKE '%package.running'",
        0,
        "complete was sent before",
    ),
    (
        "UPDATE outbox SET body = replace(body, 'run-good', 'run-evil') WHERE run_id = 'run-good'",
        0,
        "carries the build_id of another run",
    ),
    (OUTBOX_COPY.format(run="'nobody'", topic="topic"), 0, "belongs to no run and to no change"),
    (OUTBOX_COPY.format(run="'run-good'", topic="'org.c.stage.ci.pipeline.allpackages.complete'"), 0, "verdicts"),
    (OUTBOX_COPY.format(run="'run-good'", topic="'org.centos.prod.ci.pipeline.complete'"), 0, "the other pipeline"),
    (OUTBOX_COPY.format(run="'run-good'", topic="'org.nonsense'"), 0, "is no message of a run"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "later", "words"), COOKED, ids=[case[2] for case in COOKED])
def test_a_cooked_ledger_does_not_balance_and_the_audit_says_what_is_wrong(
    honest: Ledger, sql: str, later: float, words: str
) -> None:
    if later:  # time passes for a run at work as well: it beats; and a change that waits is looked after
        cook(honest, "UPDATE runs SET beat_at = 9e9")
        cook(honest, "UPDATE changes SET offered_at = 9e9 WHERE key LIKE '%patient%'")
    assert problems(honest, later) == []
    cook(honest, sql)
    found = problems(honest, later)
    assert [one for one in found if words in one], found
    assert not look(honest, later).balanced
    assert len({one.partition(":")[0] for one in found}) == 1  # nothing else is blamed


def said(text: str, prefix: str = PREFIX) -> list[SentMessage]:
    """``package.queued image.complete/FAILURE``: topics of one run, and the status where it is not SUCCESS."""
    parts = [word.partition("/") for word in text.split()]
    return [SentMessage(prefix + name, status or "SUCCESS") for name, _, status in parts]


BUILT = " ".join(PACKAGE)
PASSED = " ".join([*PACKAGE, *IMAGE, *SMOKE])

# messages, whether the run is over, what is wrong (empty: nothing)
ORDERS: list[tuple[str, bool, str]] = [
    ("", False, ""),
    ("complete/FAILURE", True, ""),
    ("package.queued package.complete/ABORTED complete/ABORTED", True, ""),
    (f"{PASSED} complete", True, ""),
    (f"{BUILT} complete/FAILURE", True, ""),
    (f"{BUILT} image.queued image.running image.complete/FAILURE complete/FAILURE", True, ""),
    ("complete", True, "without a message of package"),
    ("", True, "no verdict"),
    (BUILT, True, "no verdict"),
    (f"{PASSED} complete complete", True, "sent after the last message"),
    (f"{PASSED} complete image.queued", True, "sent after the last message"),
    ("package.queued package.queued", False, "sent twice"),
    ("package.running package.queued", False, "out of order"),
    ("package.queued package.running image.queued", False, "before package.complete"),
    (f"{BUILT} image.test.smoke.queued image.queued", False, "out of order"),
    (f"{PASSED} package.test.functional.queued package.test.functional.running"
     " package.test.functional.complete/UNSTABLE complete/SUCCESS", True, "says SUCCESS after"),
    ("package.queued package.running package.complete/FAILURE image.queued/FAILURE", False, "followed"),
    ("package.queued package.complete/FAILURE complete/ABORTED", True, "followed"),
    ("package.queued package.complete/ABORTED complete/SUCCESS", True, "says SUCCESS after"),
    ("package.ignored", False, "no message of a run"),
    ("image.bored", False, "no message of a run"),
    ("package.queued/GREAT", False, "no message of a run"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "ended", "words"), ORDERS, ids=[case[0] or "nothing" for case in ORDERS])
def test_the_contracts_order_is_held(text: str, ended: bool, words: str) -> None:
    faults = faults_of(said(text), ended)
    assert bool(faults) == bool(words), faults
    assert words in " ".join(faults)


COMPOSED = "compose.running compose.complete"
INTEGRATED = " ".join(f"compose.test.integration.{state}" for state in STATES)
IMAGED = "image.running image.complete image.test.smoke.running image.test.smoke.complete"
CONFORMED = " ".join(f"compose.test.e2e.{state}" for state in STATES)
OWED = f"{BUILT} {COMPOSED} {INTEGRATED}"

# messages of a run of Atomic Host that is over, what is wrong (empty: nothing)
ATOMIC_ORDERS: list[tuple[str, str]] = [
    (f"{OWED} complete", ""),
    (f"{BUILT} {' '.join(TESTS)} {COMPOSED} {INTEGRATED} complete", ""),
    (f"{OWED} {IMAGED} complete", ""),
    (f"{OWED} {CONFORMED} complete", ""),
    (f"{BUILT} {' '.join(TESTS)} {COMPOSED} {INTEGRATED} {IMAGED} {CONFORMED} complete", ""),
    (f"{BUILT} compose.running compose.complete/FAILURE complete/FAILURE", ""),
    (f"{BUILT} {COMPOSED} complete", "without a message of compose.test.integration"),
    (f"{BUILT} complete", "without a message of compose"),
    (
        f"{OWED} image.running image.complete image.test.smoke.complete complete",
        "image.test.smoke.running is missing",
    ),
    (f"{BUILT} {IMAGED} {COMPOSED} {INTEGRATED} complete", "out of order"),
    (f"{OWED} {CONFORMED} {IMAGED} complete", "out of order"),
    (f"{BUILT} {COMPOSED} {INTEGRATED} {' '.join(TESTS)} complete", "out of order"),
    (f"{BUILT} compose.queued {COMPOSED} {INTEGRATED} complete", "no message of a run"),
]


@pytest.mark.parametrize(("text", "words"), ATOMIC_ORDERS, ids=[case[0] for case in ATOMIC_ORDERS])
def test_the_contracts_order_of_atomic_host_is_held(text: str, words: str) -> None:
    faults = faults_of(said(text, "org.centos.prod.ci.pipeline."), ended=True, pipeline="atomic")
    assert bool(faults) == bool(words), faults
    assert words in " ".join(faults)


def work_on_atomic(ledger: Ledger, repo: str) -> None:
    """A whole run of Atomic Host that makes no image, beside whatever the other pipeline did with the change."""
    announcer = Announcer(ledger, Settings())
    change = change_of(repo)
    ledger.record(change, Decision("queued", "is tested", "accepted", "atomic", change))
    ledger.claim(change, f"run-atomic-{repo}", "http://ui/run", pipeline="atomic")
    for name in OWED.split():
        suffix, _, state = name.rpartition(".")
        announcer.stage(f"run-atomic-{repo}", suffix, state)
    announcer.close(f"run-atomic-{repo}")
    confirm(ledger)


def test_both_pipelines_balance_in_one_ledger_and_each_trigger_counts(honest: Ledger) -> None:
    before = look(honest)
    for repo in ("good", "bad", "third"):
        work_on_atomic(honest, repo)
    for repo in ("shaky", "patient"):
        change = change_of(repo)
        honest.record(change, Decision("ignored", "not in the list", "package", "atomic", change))
        Announcer(honest, Settings()).ignored(change, "atomic")
    found = look(honest)
    assert found.problems == ()
    assert found.triggers == {**before.triggers, "total": 16, "run": 8, "ignored": 3}
    assert found.runs == {**before.runs, "total": 8, "SUCCESS": 4}


# what was done to a ledger of both pipelines, what the audit says, and of which pipeline
COOKED_TWICE: list[tuple[str, str, Pipeline]] = [
    (
        "DELETE FROM outbox WHERE topic LIKE '%integration%'",
        "without a message of compose.test.integration",
        "atomic",
    ),
    ("DELETE FROM outbox WHERE run_id = 'run-good' AND topic LIKE '%smoke%'", "of image.test.smoke", "allpackages"),
    ("UPDATE runs SET pipeline = 'atomic' WHERE run_id = 'run-good'", "for the other pipeline", "atomic"),
    (
        "UPDATE outbox SET topic = replace(topic, 'pipeline.', 'pipeline.allpackages.') WHERE topic LIKE '%ignored'"
        " AND topic NOT LIKE '%allpackages%'",
        "its message speaks for the other pipeline",
        "atomic",
    ),
    ("DELETE FROM outbox WHERE topic LIKE '%pipeline.package.ignored'", "no message says so", "atomic"),
]


@pytest.mark.parametrize(("sql", "words", "pipeline"), COOKED_TWICE, ids=[case[1] for case in COOKED_TWICE])
def test_what_does_not_balance_is_said_of_its_own_pipeline(
    honest: Ledger, sql: str, words: str, pipeline: Pipeline
) -> None:
    work_on_atomic(honest, "good")
    change = change_of("shaky")
    honest.record(change, Decision("ignored", "not in the list", "package", "atomic", change))
    Announcer(honest, Settings()).ignored(change, "atomic")
    cook(honest, "UPDATE changes SET offered_at = 9e9 WHERE offered_at IS NOT NULL")
    cook(honest, "UPDATE runs SET beat_at = 9e9")
    assert problems(honest, LATE) == []
    cook(honest, sql)
    assert [one.pipeline for one in look(honest, LATE).problems if words in one.problem] == [pipeline]
