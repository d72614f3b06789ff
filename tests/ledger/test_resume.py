"""Which results a run takes that starts in the middle."""

from __future__ import annotations

import json

import pytest

from distgate.changes.change import Change
from distgate.errors import ConfigurationError
from distgate.ledger.resume import earlier_run, origin_of, stages_before, taken_over
from distgate.ledger.runs import Run, RunFacts
from distgate.pipelines import Pipeline

CHANGE = Change(namespace="rpms", repo="bash", rev="a" * 40, branch="f44", username="jane")
NO_FACTS = RunFacts()


def a_run(run_id: str, facts: RunFacts = NO_FACTS, pipeline: Pipeline = "allpackages") -> Run:
    return Run(run_id, CHANGE, "http://x", 1, "FAILURE", None, facts, True, pipeline)


def test_the_stages_before_a_start_keep_their_results() -> None:
    assert stages_before("allpackages", "package") == ()
    assert stages_before("allpackages", "image.test.smoke") == ("package", "image")
    assert stages_before("atomic", "compose") == ("package", "package.test.functional")


@pytest.mark.parametrize("wrong", ["boot", "", "compose"])
def test_a_stage_that_the_pipeline_does_not_have_is_refused_with_those_it_has(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="no stage") as caught:
        stages_before("allpackages", wrong)
    assert "image.test.smoke" in caught.value.hint


def test_the_run_before_is_the_latest_other_one() -> None:
    runs = [a_run("1"), a_run("2"), a_run("3")]
    assert earlier_run(runs, "3").run_id == "2"
    assert earlier_run(runs, "4").run_id == "3"
    with pytest.raises(ConfigurationError, match="no run of this change"):
        earlier_run(runs[:1], "1")


def test_what_earlier_stages_found_is_known_and_what_later_ones_found_is_not() -> None:
    facts = RunFacts(
        nvr="bash-5-1",
        koji_task="http://hub 7",
        compose_rev="abc",
        statuses={"package.test.functional": "UNSTABLE", "compose.test.integration": "UNSTABLE"},
    )
    found = taken_over(a_run("old", facts, "atomic"), "compose")
    assert found == RunFacts(
        nvr="bash-5-1",
        koji_task="http://hub 7",
        statuses={"package.test.functional": "UNSTABLE"},
        results={"package": "old", "package.test.functional": "old"},
    )
    assert taken_over(a_run("old", facts), "package") == RunFacts()


def test_a_result_that_was_taken_over_is_still_that_of_the_run_that_made_it() -> None:
    second = a_run("second", taken_over(a_run("first", RunFacts(nvr="bash-5-1")), "image"))
    third = taken_over(second, "image.test.smoke")
    assert (origin_of(third, "package", "third"), origin_of(third, "image", "third")) == ("first", "second")
    assert origin_of(third, "image.test.smoke", "third") == "third"


def test_facts_stand_in_the_ledger_under_flat_names_and_what_is_not_known_is_left_out() -> None:
    facts = RunFacts(nvr="bash-5-1", koji_task="", statuses={"image": "UNSTABLE"}, results={"package": "old"})
    flat = {"nvr": "bash-5-1", "koji_task": "", "status of image": "UNSTABLE", "result of package": "old"}
    assert facts.flat() == flat
    assert RunFacts.from_column(json.dumps(flat | {"of a later distgate": "x"})) == facts
