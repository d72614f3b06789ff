"""``distgate explain`` on every example of the documents, as the command that people call."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from distgate.changes.rules import RULES
from distgate.cli.pages import triage
from distgate.process import run

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "tests/data/messages").glob("*/*.json"))
SCHEMA = json.loads((ROOT / "docs/explain.schema.json").read_text())


def explain(*words: str | Path, **settings: str) -> str:
    env = {f"DISTGATE_{name}": value for name, value in settings.items()}
    return run([sys.executable, "-m", "distgate.cli", "explain", *words], timeout=60, env=env).output


def explained(*words: str | Path, **settings: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(explain(*words, "--json", **settings))
    jsonschema.validate(found, SCHEMA)
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}:{path.stem}")
def test_every_example_is_explained_pushes_are_tested_and_our_own_messages_are_not_pushes(path: Path) -> None:
    found = explained(path)
    push = "git.receive" in path.name
    assert (found["decision"], found["rule"]) == (("queued", "accepted") if push else ("ignored", "topic"))
    assert (found["change"] is not None) == push


def test_the_trace_names_every_rule_and_stops_asking_at_the_first_objection() -> None:
    path = next(path for path in EXAMPLES if "php-simplepie" in path.name)
    trace = explained(path, BRANCHES='["rawhide"]')["trace"]
    outcomes = {step["rule"]: step["outcome"] for step in trace}
    assert list(outcomes) == [rule.name for rule in RULES]
    assert (outcomes["fork"], outcomes["branch"], outcomes["package"]) == ("passed", "objected", "not-reached")
    people = explain(path, BRANCHES='["rawhide"]')
    assert "rule:     branch" in people
    assert "branch f24 is not watched, only rawhide" in people


def test_atomic_host_is_another_trigger_with_a_list_of_its_own(tmp_path: Path) -> None:
    path = next(path for path in EXAMPLES if "kubernetes" in path.name)
    (tmp_path / "f26.txt").write_text("kubernetes\n")
    assert explained(path, "--pipeline", "atomic", PACKAGE_LISTS=str(tmp_path))["decision"] == "queued"
    found = explained(path, "--pipeline", "atomic")
    assert (found["decision"], found["rule"], found["pipeline"]) == ("ignored", "package", "atomic")


def test_explain_opens_neither_database_nor_bus_nor_prefect() -> None:
    script = "import sys, distgate.changes.triage, distgate.cli; print(*sys.modules)"
    loaded = set(run([sys.executable, "-c", script], timeout=60).output.split())
    assert "pydantic" in loaded
    assert not loaded & {"sqlalchemy", "fedora_messaging", "pika", "prefect", "koji", "httpx"}


def test_the_schema_knows_exactly_the_rules() -> None:
    assert SCHEMA["definitions"]["rule"]["enum"] == [rule.name for rule in RULES]
    assert SCHEMA["properties"]["trace"]["maxItems"] == len(RULES)


def test_the_page_about_triage_is_what_the_rules_say() -> None:
    hint = "python -m distgate.cli.pages.triage > docs/triage.md"
    assert (ROOT / "docs/triage.md").read_text() == triage.page(), hint
