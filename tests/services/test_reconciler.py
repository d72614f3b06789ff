"""The reconciler against a real Prefect server: no accepted change without a run, and no run without an end.

Flow runs are made and put into their states over the API; the ledger is written as stages and hooks write it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pika
import pytest

from distgate.bus.announce import Announcer
from distgate.bus.queues import blocking_channel, declare_queue, messages_in
from distgate.changes.change import Change
from distgate.changes.triage import Decision
from distgate.errors import ConfigurationError
from distgate.ledger.ledger import Ledger
from distgate.ledger.rejections import rejections
from distgate.operations.audit import audit
from distgate.operations.ledger_queries import ledger_snapshot
from distgate.pipelines import Pipeline
from distgate.prefect_api import FlowRun, PrefectApi
from distgate.settings import Settings
from distgate.waiting import wait_for
from lab.servers.prefect_server import PrefectServer
from lab.servers.rabbitmq import EXCHANGE, Broker
from services.dead_letter_watch import DeadLetterWatch
from services.reconciler import TRIES, Reconciler

pytestmark = pytest.mark.lab
QUEUED, RUNNING = "package.queued SUCCESS", "package.running SUCCESS"
BUILT = [QUEUED, RUNNING, "package.complete SUCCESS"]


def ask(server: PrefectServer, method: str, path: str, body: Any = None) -> httpx.Response:
    """One call of the API; a server that is busy is asked again."""

    def answer() -> httpx.Response | None:
        said = httpx.request(method, f"{server.api_url}/{path}", json=body, trust_env=False, timeout=30)
        return None if said.status_code == httpx.codes.SERVICE_UNAVAILABLE else said.raise_for_status()

    return wait_for(f"Prefect to answer {method} {path}", answer, 60)


@dataclass(frozen=True)
class Bench:
    """A ledger, a deployment that nobody runs, and a reconciler for which everything is overdue."""

    server: PrefectServer
    prefect: PrefectApi
    ledger: Ledger
    own: Settings

    @property
    def reconciler(self) -> Reconciler:
        return Reconciler(self.ledger, self.prefect, self.own)

    @property
    def announcer(self) -> Announcer:
        return Announcer(self.ledger, self.own)

    def accept(self) -> Change:
        rev = (uuid.uuid4().hex * 2)[:40]
        change = Change(namespace="rpms", repo="tiny", rev=rev, branch="f41", username="jane")
        self.ledger.record(change, Decision("queued", "is tested", "accepted", change=change))
        self.ledger.offered(change.key)
        return change

    def flow_run(self, change: Change, state: str = "SCHEDULED", name: str = "") -> str:
        """What the automation does, and what became of it."""
        parameters = {"change": change.model_dump()}
        run = self.prefect.create_flow_run(self.own.deployment, parameters, idempotency_key=uuid.uuid4().hex)
        if state != "SCHEDULED":
            self.force(run.id, state, name)
        return run.id

    def force(self, run_id: str, state: str, name: str = "") -> None:
        if state == "DELETED":
            ask(self.server, "DELETE", f"flow_runs/{run_id}")
            return
        wish = {"type": state, "name": name or state.title()}
        ask(self.server, "POST", f"flow_runs/{run_id}/set_state", {"state": wish, "force": True})

    def work(self, upto: list[str]) -> tuple[Change, str]:
        """A run that claimed its change and said ``upto``."""
        change = self.accept()
        run_id = self.flow_run(change, "RUNNING")
        self.ledger.claim(change, run_id, f"http://ui/{run_id}")
        for name, status in (line.split() for line in upto):
            suffix, _, state = name.rpartition(".")
            self.announcer.stage(run_id, suffix, state, status)  # type: ignore[arg-type]
        return change, run_id

    def said(self, run_id: str) -> list[str]:
        return [f"{x.topic.split('allpackages.')[1]} {x.body['status']}" for x in self.ledger.messages_of(run_id)]

    def runs_of(self, change: Change) -> list[FlowRun]:
        found = self.prefect.flow_runs(deployment=self.own.deployment)
        return [run for run in found if run.parameters["change"]["rev"] == change.rev]

    def balanced(self) -> bool:
        """Looks once more: nothing is left to do, and the books balance."""
        assert self.reconciler.reconcile_once() == []
        found = audit(ledger_snapshot(self.ledger), 0.0)
        assert found.problems == ()
        return found.balanced


@pytest.fixture
def bench(ledger_url: str, prefect_server: PrefectServer) -> Iterator[Bench]:
    name = f"d{uuid.uuid4().hex[:8]}"
    flow = ask(prefect_server, "POST", "flows/", {"name": "quiet"}).json()
    for one in (name, f"{name}-atomic"):
        ask(prefect_server, "POST", "deployments/", {"name": one, "flow_id": flow["id"]})
    ledger = Ledger(ledger_url)
    # Negative: every run and every change counts as overdue at once.
    own = Settings(deployment=f"quiet/{name}", atomic_deployment=f"quiet/{name}-atomic", run_lease=-1, sweep_after=-1)
    with PrefectApi(prefect_server.api_url) as prefect:
        yield Bench(prefect_server, prefect, ledger, own)
    ledger.close()


ABORTED = ["package.complete ABORTED", "complete ABORTED"]

# what the run said, the state that Prefect has it in, that state's name, what it says last
ENDS: list[tuple[str, list[str], str, str, list[str]]] = [
    ("killed worker", [QUEUED, RUNNING], "RUNNING", "", ABORTED),
    ("killed before its first message", [], "RUNNING", "", ["complete ABORTED"]),
    ("killed between two stages", BUILT, "RUNNING", "", ["complete ABORTED"]),
    ("pending for ever after its worker died", [QUEUED], "PENDING", "", ABORTED),
    ("cancelling for ever after its worker died", [QUEUED, RUNNING], "CANCELLING", "", ABORTED),
    ("cancelled", [QUEUED, RUNNING], "CANCELLED", "", ABORTED),
    ("crashed", [QUEUED, RUNNING], "CRASHED", "", ABORTED),
    ("timed out", [QUEUED, RUNNING], "FAILED", "TimedOut", ABORTED),
    ("its Koji task cancelled, hook skipped", [QUEUED, RUNNING], "FAILED", "Aborted", ABORTED),
    ("deleted in Prefect", [QUEUED, RUNNING], "DELETED", "", ABORTED),
    ("failed, hook skipped", BUILT, "FAILED", "", ["complete FAILURE"]),
    ("failed in a stage, hooks skipped", [QUEUED], "FAILED", "", ["package.complete FAILURE", "complete FAILURE"]),
    ("retried when a re-run had taken its change", [QUEUED, RUNNING], "COMPLETED", "Duplicate", ABORTED),
    ("completed, hook skipped", BUILT, "COMPLETED", "", ["complete SUCCESS"]),
    (
        "unstable, hooks skipped",
        [*BUILT, "package.test.functional.queued SUCCESS"],
        "COMPLETED",
        "Unstable",
        ["package.test.functional.complete UNSTABLE", "complete UNSTABLE"],
    ),
    ("crashed after it said FAILURE", [QUEUED, "package.complete FAILURE"], "CRASHED", "", ["complete FAILURE"]),
    ("failed after it said ABORTED", [QUEUED, "package.complete ABORTED"], "FAILED", "", ["complete ABORTED"]),
    ("completed after it said FAILURE", [QUEUED, "package.complete FAILURE"], "COMPLETED", "", ["complete FAILURE"]),
]


@pytest.mark.parametrize(("said", "state", "name", "last"), [case[1:] for case in ENDS], ids=[c[0] for c in ENDS])
def test_a_run_without_an_end_is_ended_once_and_nothing_it_said_is_contradicted(
    bench: Bench, said: list[str], state: str, name: str, last: list[str]
) -> None:
    _change, run_id = bench.work(said)
    bench.force(run_id, state, name)
    (did,) = bench.reconciler.reconcile_once()
    assert run_id in did
    assert last[-1].split()[1] in did
    assert bench.said(run_id) == [*said, *last]
    known = bench.prefect.flow_run(run_id)
    assert known is None or known.finished
    assert bench.reconciler.reconcile_once() == []
    assert bench.said(run_id) == [*said, *last]


def test_a_run_that_beats_is_left_alone(bench: Bench) -> None:
    _, run_id = bench.work([QUEUED])
    patient = bench.own.model_copy(update={"run_lease": 3600, "sweep_after": 3600})
    assert Reconciler(bench.ledger, bench.prefect, patient).reconcile_once() == []
    assert bench.said(run_id) == [QUEUED]


@pytest.mark.parametrize("state", ["SCHEDULED", "PAUSED"])
def test_a_silent_run_that_prefect_will_start_again_is_left_alone(bench: Bench, state: str) -> None:
    _, run_id = bench.work([QUEUED])
    bench.force(run_id, state, "AwaitingRetry" if state == "SCHEDULED" else "")
    assert bench.reconciler.reconcile_once() == []
    assert bench.said(run_id) == [QUEUED]


def test_a_silent_run_that_has_only_just_begun_again_is_left_alone(bench: Bench) -> None:
    _, run_id = bench.work([QUEUED])
    patient = bench.own.model_copy(update={"run_lease": 0.1})
    wait_for("the run to be silent", lambda: bench.ledger.without_heartbeat(0.1), 10, interval=0.1)
    for state in ("PENDING", "RUNNING"):
        bench.force(run_id, "SCHEDULED")
        bench.force(run_id, state)
        assert not Reconciler(
            bench.ledger, bench.prefect, patient.model_copy(update={"run_lease": 60})
        ).reconcile_once()
    assert bench.said(run_id) == [QUEUED]


def test_a_retry_after_the_reconcilers_last_word_is_a_run_of_its_own(bench: Bench) -> None:
    change, run_id = bench.work([QUEUED, RUNNING])
    bench.reconciler.reconcile_once()
    bench.force(run_id, "RUNNING")
    again = bench.ledger.claim(change, run_id, "http://ui")
    assert again is not None
    assert again.build_id == f"{run_id}.2"
    bench.announcer.stage(run_id, "package", "queued")
    bench.force(run_id, "CRASHED")
    bench.reconciler.reconcile_once()
    assert bench.said(run_id) == [QUEUED, RUNNING, *ABORTED, QUEUED, *ABORTED]
    assert bench.balanced()


def test_an_accepted_change_whose_event_was_lost_gets_one_run(bench: Bench) -> None:
    change = bench.accept()
    (did,) = bench.reconciler.reconcile_once()
    (run,) = bench.runs_of(change)
    assert run.id in did
    assert bench.reconciler.reconcile_once() == []
    assert len(bench.runs_of(change)) == 1


def test_a_change_whose_run_waits_in_a_long_queue_gets_no_second_one(bench: Bench) -> None:
    change = bench.accept()
    bench.flow_run(change)
    assert bench.reconciler.reconcile_once() == []
    assert len(bench.runs_of(change)) == 1


def test_a_run_that_is_pending_for_ever_is_ended_and_another_one_started(bench: Bench) -> None:
    change = bench.accept()
    lost = bench.flow_run(change, "PENDING")
    (did,) = bench.reconciler.reconcile_once()
    known = bench.prefect.flow_run(lost)
    assert known is not None
    assert known.state_type == "CRASHED"  # its slot is free again
    (new,) = [run for run in bench.runs_of(change) if run.id != lost]
    assert new.id in did
    assert new.state_type == "SCHEDULED"
    assert bench.balanced()


def test_a_run_that_was_cancelled_before_it_began_is_answered_and_not_started_again(bench: Bench) -> None:
    change = bench.accept()
    run_id = bench.flow_run(change, "CANCELLED")
    (did,) = bench.reconciler.reconcile_once()
    assert "cancelled" in did
    assert bench.said(run_id) == ["complete ABORTED"]
    assert len(bench.runs_of(change)) == 1
    assert bench.balanced()


def test_a_change_that_cannot_be_scheduled_is_answered_with_failure(bench: Bench) -> None:
    change = bench.accept()
    said: list[str] = []
    for _ in range(TRIES):
        said += bench.reconciler.reconcile_once()
        for run in bench.runs_of(change):
            bench.force(run.id, "CRASHED")
    said += bench.reconciler.reconcile_once()
    assert len(said) == TRIES + 1
    assert "FAILURE" in said[-1]
    (run,) = bench.ledger.runs_of(change.key)
    assert bench.said(run.run_id) == ["complete FAILURE"]
    assert len(bench.runs_of(change)) == TRIES
    assert bench.balanced()


def test_a_deployment_that_is_missing_keeps_no_run_from_its_end(bench: Bench) -> None:
    _, run_id = bench.work([QUEUED])
    change = bench.accept()
    lost = bench.own.model_copy(update={"deployment": "quiet/nowhere"})
    with pytest.raises(ConfigurationError, match="404"):
        Reconciler(bench.ledger, bench.prefect, lost).reconcile_once()
    assert bench.said(run_id) == [QUEUED, *ABORTED]
    assert bench.runs_of(change) == []


def test_a_dead_letter_that_the_intake_never_saw_is_written_down_once(bench: Bench, broker: Broker) -> None:
    queue = f"q{uuid.uuid4().hex[:8]}"
    own: Any = bench.own.model_copy(update={"amqp_url": broker.url, "queue": queue})
    watch = DeadLetterWatch(bench.ledger, own)
    assert watch.check() == []  # there is no queue yet
    declare_queue(broker.url, EXCHANGE, queue, [f"{queue}.git.receive"])
    with blocking_channel(broker.url) as channel:
        for message_id, body in (("a", b"{truncated"), ("a", b"{truncated"), ("b", b"[]"), ("c", b"\xff\xfe\x00")):
            own_id = pika.BasicProperties(message_id=message_id)
            channel.basic_publish(f"{queue}.dead", f"{queue}.git.receive", body, own_id)
    wait_for("the dead letters", lambda: messages_in(broker.url, f"{queue}.dead") == 4, 10)
    assert len(watch.check()) == 3
    assert watch.check() == []
    assert DeadLetterWatch(bench.ledger, own).check() == []
    found = {one.message_id: one for one in rejections(bench.ledger)}
    assert {name: one.seen for name, one in found.items()} == {"a": 2, "b": 1, "c": 1}
    assert all("JSON" in found[name].reason for name in "ac")
    assert messages_in(broker.url, f"{queue}.dead") == 4


def accepted_by(bench: Bench, pipeline: Pipeline) -> Change:
    change = bench.accept()
    bench.ledger.record(change, Decision("queued", "is tested", "accepted", pipeline, change))
    bench.ledger.offered(change.key, pipeline)
    return change


def atomic_runs(bench: Bench) -> list[FlowRun]:
    return bench.prefect.flow_runs(deployment=bench.own.atomic_deployment)


def test_a_change_that_nobody_claimed_gets_a_run_of_each_pipeline_that_accepted_it(bench: Bench) -> None:
    change = accepted_by(bench, "atomic")
    assert len(bench.reconciler.reconcile_once()) == 2
    assert [len(bench.runs_of(change)), len(atomic_runs(bench))] == [1, 1]
    assert bench.reconciler.reconcile_once() == []
    (run,) = atomic_runs(bench)
    bench.force(run.id, "CANCELLED")
    (did,) = bench.reconciler.reconcile_once()
    assert run.id in did
    (claimed,) = bench.ledger.runs_of(change.key, "atomic")
    (letter,) = bench.ledger.messages_of(claimed.run_id)
    assert (letter.topic, letter.body["status"]) == ("org.centos.prod.ci.pipeline.complete", "ABORTED")
    assert bench.ledger.runs_of(change.key) == []
    assert bench.balanced()


def test_a_run_of_atomic_host_without_an_end_is_ended_in_its_own_words(bench: Bench) -> None:
    change = accepted_by(bench, "atomic")
    run = bench.prefect.create_flow_run(
        bench.own.atomic_deployment, {"change": change.model_dump()}, idempotency_key=uuid.uuid4().hex
    )
    bench.force(run.id, "RUNNING")
    bench.flow_run(change)
    bench.ledger.claim(change, run.id, "http://ui", pipeline="atomic")
    for suffix, state in (
        ("package", "queued"),
        ("package", "running"),
        ("package", "complete"),
        ("compose", "running"),
    ):
        bench.announcer.stage(run.id, suffix, state)
    bench.reconciler.reconcile_once()
    said = [letter.topic.partition(".ci.pipeline.")[2] for letter in bench.ledger.messages_of(run.id)]
    assert said[-2:] == ["compose.complete", "complete"]
    assert bench.balanced()


def test_a_pipeline_without_a_deployment_keeps_no_change_of_the_other_from_its_run(bench: Bench) -> None:
    change = accepted_by(bench, "atomic")
    for field in ("deployment", "atomic_deployment"):
        lost = bench.own.model_copy(update={field: "quiet/nowhere"})
        with pytest.raises(ConfigurationError, match="404"):
            Reconciler(bench.ledger, bench.prefect, lost).reconcile_once()
    assert [len(bench.runs_of(change)), len(atomic_runs(bench))] == [1, 1]
