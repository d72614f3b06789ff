"""The ledger: one change, one claim; one message, one place in the outbox."""

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.changes.triage import Decision
from distgate.ledger.history import LedgerHistory
from distgate.ledger.ledger import Ledger
from distgate.ledger.runs import RunFacts
from distgate.operations.ledger_queries import change_reports
from distgate.pipelines import PIPELINES, STAGES, Pipeline
from distgate.settings import Settings

CHANGE = Change(namespace="rpms", repo="dos2unix", rev="ab" * 20, branch="f41", username="jane")
QUEUED = Decision("queued", "is tested", "accepted", change=CHANGE)
URL = "http://ui/run"


@pytest.fixture
def announcer(ledger: Ledger, ledger_url: str) -> Iterator[Announcer]:
    """As a run has it: ``ledger`` has made the tables."""
    opened = Ledger(ledger_url)
    yield Announcer(opened, Settings())
    opened.close()


def test_the_same_push_three_times_is_one_change(ledger: Ledger) -> None:
    assert [ledger.record(CHANGE, QUEUED).new for _ in range(3)] == [True, False, False]
    assert ledger.counts()["queued"] == 1


def test_one_run_claims_a_change_and_a_second_gets_nothing(ledger: Ledger) -> None:
    ledger.record(CHANGE, QUEUED)
    first = ledger.claim(CHANGE, "run-1", URL)
    assert first is not None
    assert first.build_id == "run-1"
    assert ledger.claim(CHANGE, "run-2", URL) is None
    assert ledger.claim(CHANGE, "run-1", URL) == first
    assert ledger.claim(CHANGE, "run-2", URL, again=True) is not None
    assert len(ledger.runs_of(CHANGE.key)) == 2


def test_what_nobody_claimed_is_found_until_somebody_does(ledger: Ledger) -> None:
    ledger.record(CHANGE, QUEUED)
    assert ledger.unclaimed(older_than=-1) == [CHANGE]
    assert ledger.unclaimed(older_than=3600) == []
    ledger.claim(CHANGE, "run-1", URL)
    assert ledger.unclaimed(older_than=-1) == []


def test_ignored_changes_are_never_offered(ledger: Ledger, announcer: Announcer) -> None:
    ledger.record(CHANGE, Decision("ignored", "not watched", "branch", change=CHANGE))
    assert ledger.unclaimed(older_than=-1) == []
    assert [announcer.ignored(CHANGE), announcer.ignored(CHANGE)] == [True, False]
    (message,) = ledger.unsent()
    assert message.topic == "org.centos.prod.ci.pipeline.allpackages.package.ignored"
    assert message.body["status"] == "SUCCESS"


def test_messages_carry_the_status_so_far_and_the_nvr_once_it_is_known(ledger: Ledger, announcer: Announcer) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    announcer.stage("run-1", "package", "queued")
    announcer.stage("run-1", "package", "running")
    ledger.record_facts("run-1", RunFacts(nvr="dos2unix-7.5-1.fc41", original_spec_nvr="dos2unix-7.5-1.fc41"))
    announcer.stage("run-1", "package", "complete")
    announcer.stage("run-1", "package.test.functional", "complete", "UNSTABLE")
    announcer.close("run-1")
    said = [(x.topic.split("allpackages.")[1], x.body["status"], x.body["nvr"]) for x in ledger.messages_of("run-1")]
    assert said == [
        ("package.queued", "SUCCESS", ""),
        ("package.running", "SUCCESS", ""),
        ("package.complete", "SUCCESS", "dos2unix-7.5-1.fc41"),
        ("package.test.functional.complete", "UNSTABLE", "dos2unix-7.5-1.fc41"),
        ("complete", "UNSTABLE", "dos2unix-7.5-1.fc41"),
    ]


def test_what_the_ledger_refused_for_a_moment_is_said_before_the_next_stage(
    ledger: Ledger, announcer: Announcer
) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    for suffix in ("package", "image.test.smoke"):  # and no complete: the hook that says it failed
        announcer.stage("run-1", suffix, "queued")
        announcer.stage("run-1", suffix, "running")
    ledger.record_facts("run-1", RunFacts(statuses={"image.test.smoke": "UNSTABLE"}))
    announcer.stage("run-1", "package.test.functional", "queued")
    said = [
        (message.topic.split("allpackages.")[1], message.body["status"]) for message in ledger.messages_of("run-1")
    ]
    assert said == [
        ("package.queued", "SUCCESS"),
        ("package.running", "SUCCESS"),
        ("package.complete", "SUCCESS"),
        ("image.test.smoke.queued", "SUCCESS"),
        ("image.test.smoke.running", "SUCCESS"),
        ("image.test.smoke.complete", "UNSTABLE"),
        ("package.test.functional.queued", "UNSTABLE"),
    ]


def test_a_last_stage_that_could_not_say_so_is_no_success_when_the_run_ends(
    ledger: Ledger, announcer: Announcer
) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    announcer.stage("run-1", "package.test.functional", "running")
    ledger.record_facts("run-1", RunFacts(statuses={"package.test.functional": "UNSTABLE"}))
    announcer.close("run-1")
    said = [
        (message.topic.split("allpackages.")[1], message.body["status"]) for message in ledger.messages_of("run-1")
    ]
    assert said[1:] == [("package.test.functional.complete", "UNSTABLE"), ("complete", "UNSTABLE")]


def test_a_run_that_was_killed_in_a_stage_comes_by_the_earlier_ones_again(
    ledger: Ledger, announcer: Announcer
) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    for suffix, state in (("package", "queued"), ("package", "complete"), ("image", "queued")):
        announcer.stage("run-1", suffix, state)
    ledger.claim(CHANGE, "run-1", URL)
    announcer.stage("run-1", "package", "queued")
    assert [message.topic.split("allpackages.")[1] for message in ledger.messages_of("run-1")][-1] == "image.queued"


def test_nothing_is_said_twice_and_nothing_after_the_last_word(ledger: Ledger, announcer: Announcer) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    assert announcer.stage("run-1", "package", "queued")
    assert not announcer.stage("run-1", "package", "queued")
    assert announcer.close("run-1", "ABORTED")
    assert not announcer.close("run-1")
    assert not announcer.stage("run-1", "image", "queued")
    said = [
        (message.topic.split("allpackages.")[1], message.body["status"]) for message in ledger.messages_of("run-1")
    ]
    assert said == [("package.queued", "SUCCESS"), ("package.complete", "ABORTED"), ("complete", "ABORTED")]


def test_a_retry_after_the_last_word_is_a_run_of_its_own_on_the_wire(ledger: Ledger, announcer: Announcer) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    ledger.record_facts("run-1", RunFacts(koji_task="7", nvr="dos2unix-7.5-1.fc41"))
    announcer.close("run-1", "ABORTED")
    again = ledger.claim(CHANGE, "run-1", URL)
    assert again is not None
    assert (again.build_id, again.status, again.facts.koji_task) == ("run-1.2", "SUCCESS", "7")
    announcer.stage("run-1", "package", "running")
    assert ledger.messages_of("run-1")[-1].body["nvr"] == ""
    assert announcer.close("run-1")
    ids = [message.message_id for message in ledger.messages_of("run-1")]
    assert len(set(ids)) == 4


def test_a_run_without_a_change_says_nothing(announcer: Announcer) -> None:
    assert not announcer.stage("nobody", "package", "queued")
    assert not announcer.close("nobody")


def test_a_run_that_is_silent_is_found_until_it_beats_or_ends(ledger: Ledger, announcer: Announcer) -> None:
    ledger.claim(CHANGE, "run-1", URL)
    assert [run.run_id for run in ledger.without_heartbeat(-1)] == ["run-1"]
    assert ledger.without_heartbeat(3600) == []
    assert ledger.heartbeat("run-1", 1)
    assert not ledger.heartbeat("run-1", 2)
    announcer.close("run-1", "ABORTED")
    assert not ledger.heartbeat("run-1", 1)
    assert ledger.without_heartbeat(-1) == []


def queued_for(pipeline: Pipeline) -> Decision:
    return Decision("queued", "is tested", "accepted", pipeline, CHANGE, head=True)


def test_one_commit_may_have_a_run_of_each_pipeline_and_neither_holds_it_for_the_other(ledger: Ledger) -> None:
    assert [ledger.record(CHANGE, queued_for(pipeline)).new for pipeline in PIPELINES] == [True, True]
    runs = {pipeline: ledger.claim(CHANGE, f"run-{pipeline}", URL, pipeline=pipeline) for pipeline in PIPELINES}
    assert {name: run.pipeline for name, run in runs.items() if run} == {name: name for name in PIPELINES}
    for pipeline in PIPELINES:
        assert ledger.claim(CHANGE, "late", URL, pipeline=pipeline) is None
        assert [run.run_id for run in ledger.runs_of(CHANGE.key, pipeline)] == [f"run-{pipeline}"]
        assert ledger.run(f"run-{pipeline}") == runs[pipeline]
    assert [one.pipeline for one in change_reports(ledger, "dos2unix", "abab")] == list(PIPELINES)
    assert sorted(run.pipeline for run in ledger.without_heartbeat(-1)) == sorted(PIPELINES)


def test_what_one_pipeline_answered_says_nothing_of_the_other(ledger: Ledger) -> None:
    ledger.record(CHANGE, queued_for("allpackages"))
    ledger.offered(CHANGE.key)
    mine, other = LedgerHistory(ledger), LedgerHistory(ledger, "atomic")
    assert (mine.recorded(CHANGE) is None, other.recorded(CHANGE)) == (False, None)
    assert (mine.accepted(3600), other.accepted(3600)) == (1, 0)
    assert (mine.accepted(3600, CHANGE), other.accepted(3600, CHANGE)) == (1, 0)
    older = CHANGE.model_copy(update={"rev": "cd" * 20})
    assert (mine.newer(older, 60), other.newer(older, 60)) == (CHANGE.rev, None)

    ledger.record(CHANGE, queued_for("atomic"))
    assert (mine.unoffered(), other.unoffered()) == ([], [CHANGE])
    ledger.claim(CHANGE, "run-1", URL)
    assert (ledger.unclaimed(-1), ledger.unclaimed(-1, "atomic")) == ([], [CHANGE])
    ledger.offered(CHANGE.key, "atomic")
    assert other.unoffered() == []

    assert other.decide_again(CHANGE, Decision("queued", "it waits", "settling", "atomic", CHANGE))
    assert (mine.settled(-1), other.settled(-1)) == ([], [CHANGE])
    assert other.decide_again(CHANGE, Decision("ignored", "not in the list", "package", "atomic", CHANGE))
    assert [one.decision for one in (mine.recorded(CHANGE), other.recorded(CHANGE)) if one] == ["queued", "ignored"]


def test_runs_of_both_pipelines_speak_each_in_its_own_words(ledger: Ledger, announcer: Announcer) -> None:
    for pipeline in PIPELINES:
        ledger.claim(CHANGE, pipeline, URL, pipeline=pipeline)
        for suffix in ("package", "image"):
            for state in ("queued", "running", "complete"):
                announcer.stage(pipeline, suffix, state)
        announcer.stage(pipeline, "image.test.smoke", "running")
        announcer.close(pipeline, "ABORTED")
        assert announcer.ignored(CHANGE, pipeline)
    said = {name: [x.topic.partition(".ci.pipeline.")[2] for x in ledger.messages_of(name)] for name in PIPELINES}
    both = ["package.queued", "package.running", "package.complete", "image.running", "image.complete"]
    end = ["image.test.smoke.running", "image.test.smoke.complete", "complete"]
    assert said["atomic"] == [*both, *end]
    assert said["allpackages"] == [f"allpackages.{name}" for name in (*both[:3], "image.queued", *both[3:], *end)]
    assert {x.body["username"] for x in ledger.messages_of("atomic")} == {"fedora-atomic"}
    ignored = [message for message in ledger.unsent(100) if message.topic.endswith(".ignored")]
    assert [one.topic.partition(".ci.")[2] for one in ignored] == [
        "pipeline.allpackages.package.ignored",
        "pipeline.package.ignored",
    ]
    assert len({one.body["build_id"] for one in ignored}) == len({one.message_id for one in ignored}) == 2


@pytest.mark.parametrize("suffix", STAGES["atomic"])
def test_every_stage_of_atomic_host_may_be_entered_and_broken_off(
    ledger: Ledger, announcer: Announcer, suffix: str
) -> None:
    ledger.claim(CHANGE, "run-1", URL, pipeline="atomic")
    if suffix:
        announcer.stage("run-1", suffix, "queued")
        assert announcer.stage("run-1", suffix, "running")
    assert announcer.close("run-1", "FAILURE")
    last = [f"{suffix}.complete FAILURE".lstrip("."), "complete FAILURE"] if suffix else ["complete FAILURE"]
    said = [f"{x.topic.partition('.pipeline.')[2]} {x.body['status']}" for x in ledger.messages_of("run-1")]
    assert said[-len(last) :] == last


def _write_many(url: str, run: str) -> None:
    ledger = Ledger(url)
    announcer = Announcer(ledger, Settings())
    change = CHANGE.model_copy(update={"rev": run * 40})
    ledger.claim(change, run, URL)
    for suffix, state in [
        ("package", "queued"),
        ("package", "running"),
        ("package", "complete"),
        ("image", "queued"),
    ]:
        announcer.stage(run, suffix, state)
    announcer.close(run)


def test_many_processes_write_at_once_and_each_run_keeps_its_order(ledger_url: str, ledger: Ledger) -> None:
    runs = "01234567"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.starmap(_write_many, [(ledger_url, run) for run in runs])
    messages = ledger.unsent(limit=1000)
    assert len(messages) == len(runs) * 6
    for run in runs:
        said = [message.topic.rsplit("allpackages.")[1] for message in messages if message.body["rev"] == run * 40]
        assert said == [
            "package.queued",
            "package.running",
            "package.complete",
            "image.queued",
            "image.complete",
            "complete",
        ]


EXAMPLES = Path(__file__).parents[1] / "data/messages/atomic"
#: Who speaks, and where to look: ours, not theirs.
OWN = ("CI_NAME", "build_id", "build_url")


@pytest.mark.parametrize("state", ["ignore", "ignored"])
def test_what_atomic_host_ignores_it_says_as_the_documents_example_does(ledger: Ledger, state: str) -> None:
    example = json.loads((EXAMPLES / "org.centos.prod.ci.pipeline.package.ignore.json").read_text())["msg"]
    change = Change(**{name: example[name] for name in ("namespace", "repo", "rev", "branch")}, username="jane")
    assert Announcer(ledger, Settings(legacy_ignore=state == "ignore")).ignored(change, "atomic")
    (message,) = ledger.unsent()
    expected = {name: message.body[name] if name in OWN else value for name, value in example.items()}
    assert message.body == expected | {"topic": f"org.centos.prod.ci.pipeline.package.{state}"}
    assert message.topic == message.body["topic"]


def test_a_run_of_atomic_host_is_queued_in_the_words_of_the_example(ledger: Ledger, announcer: Announcer) -> None:
    example = json.loads((EXAMPLES / "org.centos.prod.ci.pipeline.package.queued.json").read_text())["msg"]
    change = Change(**{name: example[name] for name in ("namespace", "repo", "rev", "branch")}, username="jane")
    ledger.claim(change, "run-1", URL, pipeline="atomic")
    announcer.stage("run-1", "package", "queued")
    (message,) = ledger.unsent()
    assert message.body == {name: message.body[name] if name in OWN else value for name, value in example.items()}
