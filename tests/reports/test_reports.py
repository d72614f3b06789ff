"""What a run is to others: a build's tests, results, a flag, news."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from fedora_messaging import message as bus
from jsonschema import ValidationError  # type: ignore[import-untyped]

from distgate.pipelines import PIPELINES, STAGES, Pipeline
from distgate.reports.channels.ci_messages import ci_message, topic_of
from distgate.reports.channels.dist_git_flag import LONGEST, flag_of
from distgate.reports.channels.resultsdb import result_of
from distgate.reports.notice import RunEvent, package_verdict, verdict_change
from distgate.reports.reporter import ReporterIdentity
from distgate_messages import ci_test

SPEAKER = ReporterIdentity("fedora-ci", "the team", "team@example.org", "https://example.org/docs", "http://logs")
RUN: dict[str, Any] = {
    "message_id": "m-1",
    "pipeline": "allpackages",
    "namespace": "rpms",
    "repo": "bash",
    "branch": "f41",
    "rev": "ab" * 20,
    "username": "jane",
    "key": f"rpms/bash@f41#{'ab' * 20}",
    "build_id": "0b6f7c1e-7a34-4f4c-9d4e-0d5e6a1f2b3c.2",
    "build_url": "http://ui/runs/1",
    "main_topic": "org.centos.prod",
    "created_at": 1_750_000_000.0,
    "nvr": "bash-5.2-1.fc41",
    "task_id": 4711,
    "tested": True,
}


def notice(suffix: str, state: str, status: str = "SUCCESS", own: str = "", **more: Any) -> RunEvent:
    return RunEvent(**{**RUN, "suffix": suffix, "state": state, "status": status, "own_status": own or status} | more)


def end(status: str, blame: str = "", **more: Any) -> RunEvent:
    sentence = more.pop("sentence", f"bash f41 abababa: it ended as {status}")
    return notice("", "complete", status, blame=blame, sentence=sentence, **more)


def named(value: Any) -> str | None:
    """The ID of a row: its notice."""
    return f"{value.suffix}.{value.state} {value.status} {value.blame}" if isinstance(value, RunEvent) else None


# the notice, and the state that the dialect has for it, with the result
CI: list[tuple[RunEvent, tuple[str, str] | None]] = [
    (notice("package", "queued"), None),
    (notice("package", "running", nvr="", task_id=None), None),
    (notice("package", "complete"), ("queued", "")),
    (notice("package", "complete", "FAILURE", nvr=""), None),
    (notice("package", "complete", "FAILURE"), None),
    (notice("image", "running"), ("running", "")),
    (notice("image.test.smoke", "complete"), None),
    (notice("package.test.functional", "running", pipeline="atomic"), ("running", "")),
    (end("SUCCESS"), ("complete", "passed")),
    (end("SUCCESS", tested=False), ("complete", "not_applicable")),
    (end("UNSTABLE", "package"), ("complete", "failed")),
    (end("FAILURE", "package"), ("complete", "failed")),
    (end("FAILURE", "tests"), ("complete", "failed")),
    (end("FAILURE", "infrastructure"), ("error", "")),
    (end("FAILURE"), ("error", "")),
    (end("FAILURE", "package", nvr="", task_id=None), None),
    (end("ABORTED", "cancelled"), ("error", "")),
]


@pytest.mark.parametrize(("told", "said"), CI, ids=named)
def test_the_dialect_of_builds_has_one_state_for_the_whole_pipeline(
    told: RunEvent, said: tuple[str, str] | None
) -> None:
    found = ci_message(told, SPEAKER)
    if said is None:
        assert found is None
        return
    assert found is not None
    state, body = found
    assert (state, body["test"].get("result", "")) == said
    message = ci_test.CLASSES[state](topic=topic_of(told.main_topic, state), body=body)
    message.validate()
    assert message.topic == f"org.centos.prod.ci.koji-build.test.{state}"
    assert (message.url, message.packages, message.usernames) == (told.build_url, ["bash"], ["jane"])
    assert told.nvr in message.summary
    assert message.summary in str(message)


def test_a_body_of_the_dialect_says_which_build_and_whom_to_ask() -> None:
    found = ci_message(end("FAILURE", "infrastructure", sentence="the disk is full"), SPEAKER)
    assert found is not None
    body = found[1]
    assert body["artifact"]["id"] == 4711
    assert body["artifact"]["scratch"] is True
    assert body["artifact"]["source"] == f"rpms/bash#{'ab' * 20}"
    assert body["error"] == {"reason": "the disk is full"}
    assert body["run"]["log"] == "http://logs/0b6f7c1e-7a34-4f4c-9d4e-0d5e6a1f2b3c/"
    assert body["generated_at"] == "2025-06-15T15:06:40Z"
    assert body["contact"]["email"] == "team@example.org"


# what is put into a good body, by path; None takes it out
WRONG: list[tuple[str, Any]] = [
    ("artifact.id", 0),
    ("artifact.id", "4711"),
    ("artifact.nvr", ""),
    ("artifact.scratch", None),
    ("contact.email", "nobody"),
    ("contact.docs", None),
    ("run.url", "no address"),
    ("test.result", "great"),
    ("test.category", "fun"),
    ("system", None),
    ("version", "0.2.1"),
    ("generated_at", None),
]


@pytest.mark.parametrize(("path", "value"), WRONG, ids=str)
def test_what_breaks_the_dialect_is_not_sent(path: str, value: Any) -> None:
    found = ci_message(end("SUCCESS"), SPEAKER)
    assert found is not None
    *way, last = path.split(".")
    where = found[1]
    for word in way:
        where = where[word]
    where.pop(last)
    if value is not None:
        where[last] = value
    with pytest.raises(ValidationError):
        ci_test.BuildTestCompleteV1(topic="org.t", body=found[1]).validate()


def test_the_classes_of_the_dialect_are_registered() -> None:
    names = {bus.get_name(kind) for kind in ci_test.CLASSES.values()}
    assert names == {f"distgate.ci_test.BuildTest{one}V1" for one in ("Queued", "Running", "Complete", "Error")}


# the notice, and the test and outcome that ResultsDB gets
RESULTS: list[tuple[RunEvent, tuple[str, str] | None]] = [
    (notice("package", "complete"), None),
    (notice("image.test.smoke", "running"), None),
    (notice("image.test.smoke", "complete"), ("smoke", "PASSED")),
    (notice("image.test.smoke", "complete", "FAILURE"), ("smoke", "NEEDS_INSPECTION")),
    (notice("package.test.functional", "complete", "UNSTABLE"), ("functional", "FAILED")),
    # The pipeline was unstable before; the stage itself is well.
    (
        notice("compose.test.integration", "complete", "UNSTABLE", "SUCCESS", pipeline="atomic"),
        ("integration", "PASSED"),
    ),
    (end("SUCCESS"), ("pipeline", "PASSED")),
    (end("SUCCESS", tested=False), ("pipeline", "INFO")),
    (end("UNSTABLE", "package"), ("pipeline", "FAILED")),
    (end("FAILURE", "package"), ("pipeline", "FAILED")),
    (end("FAILURE", "infrastructure"), ("pipeline", "NEEDS_INSPECTION")),
    (end("FAILURE"), ("pipeline", "NEEDS_INSPECTION")),
    (end("ABORTED"), ("pipeline", "NEEDS_INSPECTION")),
]


@pytest.mark.parametrize(("told", "said"), RESULTS, ids=named)
def test_a_stage_that_tests_and_the_pipeline_are_results(told: RunEvent, said: tuple[str, str] | None) -> None:
    result = result_of(told, SPEAKER)
    if said is None:
        assert result is None
        return
    assert result is not None
    name = f"fedora-ci.koji-build.{told.pipeline}.{said[0]}"
    assert (result["testcase"]["name"], result["outcome"]) == (name, said[1])
    assert result["data"]["item"] == "bash-5.2-1.fc41"
    assert all(isinstance(value, str) and ":" not in key for key, value in result["data"].items())


def test_a_commit_that_does_not_build_is_an_item_of_its_own() -> None:
    result = result_of(end("FAILURE", "package", nvr="", task_id=None), SPEAKER)
    assert result is not None
    assert (result["data"]["type"], result["data"]["item"]) == ("dist-git-commit", f"rpms/bash#{'ab' * 20}")


# the notice, and the flag's status and percentage
FLAGS: list[tuple[RunEvent, tuple[str, int] | None]] = [
    (notice("package", "queued"), None),
    (notice("package", "running"), ("pending", 0)),
    (notice("image.test.smoke", "running"), ("pending", 40)),
    (notice("image.test.smoke", "complete"), None),
    (end("SUCCESS"), ("success", 100)),
    (end("UNSTABLE", "package"), ("failure", 100)),
    (end("FAILURE", "package"), ("failure", 100)),
    (end("FAILURE", "infrastructure"), ("error", 100)),
    (end("ABORTED"), ("canceled", 100)),
    (end("SUCCESS", current=False), None),
]


@pytest.mark.parametrize(("told", "said"), FLAGS, ids=named)
def test_a_flag_is_pending_until_the_end(told: RunEvent, said: tuple[str, int] | None) -> None:
    flag = flag_of(told)
    assert (flag and (flag.status, flag.percent)) == said


def test_one_commit_has_one_flag_for_each_pipeline_however_often_it_is_tested() -> None:
    told = [end("FAILURE"), end("SUCCESS", build_id="another"), end("SUCCESS", pipeline="atomic")]
    ids = [flag.uid for one in told if (flag := flag_of(one))]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == 32


def test_a_long_sentence_is_cut_for_the_flag() -> None:
    flag = flag_of(end("FAILURE", "package", sentence="bash f41 abababa: " + "x" * 1000))
    assert flag is not None
    assert len(flag.comment) == LONGEST
    assert flag.comment.startswith("xxx")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_stage_has_a_flag_while_it_runs(pipeline: Pipeline) -> None:
    running = [stage.suffix for stage in STAGES[pipeline].values() if "running" in stage.states]
    percents = [flag.percent for one in running if (flag := flag_of(notice(one, "running", pipeline=pipeline)))]
    assert percents == sorted(percents)
    assert len(percents) == len(running)


# the colour before, the end, and whether that is news
NEWS: list[tuple[Literal["green", "red"] | None, RunEvent, str]] = [
    (None, end("SUCCESS"), ""),
    (None, end("FAILURE", "package"), "fails"),
    ("green", end("UNSTABLE", "package"), "fails"),
    ("red", end("FAILURE", "package"), ""),
    ("red", end("SUCCESS"), "works again"),
    ("green", end("SUCCESS"), ""),
    ("green", end("FAILURE", "infrastructure"), ""),
    ("green", end("ABORTED"), ""),
    ("red", end("ABORTED"), ""),
    ("green", notice("image", "complete", "FAILURE"), ""),
]


@pytest.mark.parametrize(("before", "told", "said"), NEWS, ids=named)
def test_only_a_changed_verdict_is_news(before: Literal["green", "red"] | None, told: RunEvent, said: str) -> None:
    news = verdict_change(RunEvent(**{**vars(told), "before": before}))
    assert (f"bash f41 {said} (allpackages, abababa by jane)" if said else None) == (news and news.subject)
    assert news is None or told.build_url in news.text


def test_news_carry_no_controls_of_terminals_or_headers() -> None:
    news = verdict_change(
        end("FAILURE", "package", username="x\r\nBcc: all@example.org", sentence="\x1b[31mred\nBcc: y")
    )
    assert news is not None
    assert not any(one in news.subject for one in "\r\n\x1b")
    assert news.text.splitlines()[0] == "red Bcc: y"


def test_an_end_on_our_side_says_nothing_of_the_package() -> None:
    said = [
        package_verdict("FAILURE", blame)
        for blame in ("infrastructure", "configuration", "bug", "package", "tests", "")
    ]
    assert said == [None, None, None, "red", "red", "red"]
