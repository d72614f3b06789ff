"""The schema classes hold for all 26 examples and for everything that the stage table renders."""

import json
from pathlib import Path
from typing import Any

import pytest
from fedora_messaging import message as bus
from jsonschema import ValidationError  # type: ignore[import-untyped]

from distgate.bus.message import as_message, class_of
from distgate.bus.render import Facts, render
from distgate.cli.pages.messages import page
from distgate.ledger.runs import OutboxMessage
from distgate.pipelines import STAGES, Pipeline
from distgate_messages import allpackages, atomic
from distgate_messages.stage import StageMessage

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "tests/data/messages").glob("*/org.centos*.json"))
CLASSES: dict[str, type[StageMessage]] = {"allpackages": allpackages.StageV1, "atomic": atomic.StageV1}
FACTS = {
    "build_id": "1",
    "build_url": "http://ui/1",
    "namespace": "rpms",
    "repo": "dos2unix",
    "rev": "ab" * 20,
    "branch": "f41",
    "username": "jane",
}


def rendered(pipeline: Pipeline, **more: str) -> list[dict[str, str]]:
    """Every message of a pipeline."""
    stages = [(stage.suffix, state) for stage in STAGES[pipeline].values() for state in stage.states]
    return [
        render(Facts.model_validate(FACTS | {"pipeline": pipeline, "suffix": suffix, "state": state} | more))
        for suffix, state in stages
    ]


def letter_of(body: dict[str, str]) -> OutboxMessage:
    return OutboxMessage(1, "an-id", body["topic"], body, created_at=0.0, sent_at=None, tries=0, error=None)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}:{path.stem}")
def test_the_example_fits_the_class_of_its_topic_and_every_property_speaks(path: Path) -> None:
    example = json.loads(path.read_text())
    body = example["msg"]
    message = class_of(body["topic"])(topic=body["topic"], body=body)
    message.validate()
    assert type(message) is CLASSES[path.parent.name]
    assert (message.url, message.packages) == (body["build_url"], [body["repo"]])
    assert message.usernames == ([body["username"]] if path.parent.name == "allpackages" else [])
    assert all(word in message.summary for word in (body["repo"], body["branch"], body["rev"][:7], body["status"]))
    assert message.summary in str(message)
    assert json.loads(message.msg_json) == body
    if "msgJson" in example:
        assert message.msg_json == example["msgJson"]


@pytest.mark.parametrize("main_topic", ["org.centos.prod", "org.centos.stage"])
@pytest.mark.parametrize("pipeline", ["allpackages", "atomic"])
def test_every_message_of_the_table_fits_its_class(pipeline: Pipeline, main_topic: str) -> None:
    for body in rendered(pipeline, main_topic=main_topic):
        message = as_message(letter_of(body))
        message.validate()
        assert type(message) is CLASSES[pipeline]
        assert message.id == "an-id"


@pytest.mark.parametrize("status", ["SUCCESS", "UNSTABLE", "FAILURE", "ABORTED"])
def test_bad_news_is_a_warning(status: str) -> None:
    (body,) = [body for body in rendered("atomic", status=status) if body["topic"].endswith("pipeline.complete")]
    assert as_message(letter_of(body)).severity == (bus.INFO if status == "SUCCESS" else bus.WARNING)


def test_the_classes_are_registered_under_names_that_carry_their_version() -> None:
    assert bus.get_name(allpackages.StageV1) == "distgate.allpackages.StageV1"
    assert bus.get_name(atomic.StageV1) == "distgate.atomic.StageV1"


# what is wrong with the body; None leaves a field out
WRONG: list[dict[str, Any]] = [
    {"status": "GREAT"},
    {"status": None},
    {"rev": ""},
    {"build_url": ""},
    {"branch": 41},
    {"repo": ["bash"]},
    {"commit": {"rev": "nested"}},
    {"colour": "red"},
    {"message-content": None},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("pipeline", ["allpackages", "atomic"])
def test_a_body_that_breaks_the_contract_is_refused(pipeline: Pipeline, wrong: dict[str, Any]) -> None:
    body: dict[str, Any] = rendered(pipeline)[-1] | wrong
    kind = CLASSES[pipeline]
    message = kind(topic=body["topic"], body={name: value for name, value in body.items() if value is not None})
    with pytest.raises(ValidationError):
        message.validate()


def test_the_reference_page_is_what_the_table_says() -> None:
    said = "run `distgate messages reference > docs/reference-messages.md`"
    assert (ROOT / "docs/reference-messages.md").read_text() == page(), said
