"""The 26 stage examples of the documents are the golden test of the stage table."""

import json
from pathlib import Path

import pytest

from distgate.bus.render import Facts, msg_json, parse_facts, render
from distgate.errors import ConfigurationError
from distgate.pipelines import QUOTES, STAGES, split_topic, topic_of
from distgate_messages.allpackages import StageV1

EXAMPLES = sorted((Path(__file__).parents[1] / "data/messages").glob("*/org.centos*.json"))
KNOWN_LATER = ("nvr", "original_spec_nvr", "compose_rev", "compose_url", "image_name", "image_url", "package_url")
GIVEN = ("build_id", "build_url", "namespace", "repo", "rev", "branch", "status", "username", "CI_NAME")
FACTS = {
    "pipeline": "allpackages",
    "suffix": "image",
    "state": "complete",
    "build_id": "1",
    "build_url": "http://ui/1",
    "namespace": "rpms",
    "repo": "dos2unix",
    "rev": "0" * 40,
    "branch": "f41",
    "username": "jane",
}


def facts_behind(pipeline: str, body: dict[str, str]) -> Facts:
    """What the run knew: the example's real values, without the placeholders that the table must supply."""
    infix = "allpackages." if pipeline == "allpackages" else ""
    suffix, _, state = body["topic"].split(f".ci.pipeline.{infix}", 1)[1].rpartition(".")
    known = {name: body[name] for name in KNOWN_LATER if body.get(name, "") not in ("", QUOTES)}
    given = {name: body[name] for name in GIVEN}
    return Facts.model_validate({"pipeline": pipeline, "suffix": suffix, "state": state, **given, **known})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}:{path.stem}")
def test_the_example_is_rendered_exactly(path: Path) -> None:
    example = json.loads(path.read_text())
    body = render(facts_behind(path.parent.name, example["msg"]))
    assert body == example["msg"]
    if "msgJson" in example:
        assert msg_json(body) == example["msgJson"]


def test_all_the_documents_examples_are_here() -> None:
    assert len(EXAMPLES) == 26
    assert sum("msgJson" in json.loads(path.read_text()) for path in EXAMPLES) == 14


@pytest.mark.parametrize("path", [p for p in EXAMPLES if p.parent.name == "allpackages"], ids=lambda p: p.stem)
def test_the_schema_class_accepts_the_example(path: Path) -> None:
    body = json.loads(path.read_text())["msg"]
    message = StageV1(topic=body["topic"], body=body)
    message.validate()
    assert message.packages == ["bind"]
    assert body["status"] in message.summary


def test_every_all_packages_message_fits_its_schema() -> None:
    for stage in STAGES["allpackages"].values():
        for state in stage.states:
            body = render(Facts.model_validate(FACTS | {"suffix": stage.suffix, "state": state}))
            StageV1(topic=body["topic"], body=body).validate()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"suffix": "nosuch"}, "no allpackages stage has the suffix 'nosuch'"),
        ({"state": "ignored"}, "image has no state 'ignored'"),
        ({"suffix": "", "state": "queued"}, "the pipeline has no state 'queued'"),
        ({"build_url": ""}, "must not leave build_url empty"),
        ({"username": ""}, "must not leave username empty"),
        ({"status": "GREAT"}, "status"),
        ({"pipeline": "modules"}, "pipeline"),
        ({"colour": "red"}, "colour"),
        ({"repo": "\ud800"}, "half of a surrogate pair"),
    ],
)
def test_facts_that_fit_no_message_are_refused_by_name(change: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        render(parse_facts(FACTS | change))


def test_a_topic_is_split_into_what_it_was_made_of() -> None:
    for pipeline, stages in STAGES.items():
        for stage in stages.values():
            for state in stage.states:
                name = f"{stage.suffix}.{state}" if stage.suffix else state
                assert split_topic(topic_of(pipeline, stage.suffix, state, "org.centos.stage")) == (pipeline, name)
