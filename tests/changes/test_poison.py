"""Messages that nobody should send: each gets a decision, none an exception; what passes is small and clean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from distgate.changes.triage import decide_text
from distgate.settings import Settings

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/explain.schema.json").read_text())
TOPIC = "org.fedoraproject.prod.git.receive"
PAGURE = "org.fedoraproject.prod.pagure.git.receive"
COMMIT = {"namespace": "rpms", "repo": "dos2unix", "rev": "ab" * 20, "branch": "f41", "username": "jane"}
PUSH = {"repo": {"namespace": "rpms", "name": "dos2unix"}, "branch": "f41", "end_commit": "ab" * 20, "agent": "jane"}
REVERSED, ZALGO = "\u202egpj.exe", "Z" + "\u0301\u0489\u0334" * 200


def commit(**fields: Any) -> str:
    return json.dumps({"topic": TOPIC, "msg": {"commit": COMMIT | fields}})


def without(*names: str) -> str:
    return json.dumps({"commit": {name: value for name, value in COMMIT.items() if name not in names}})


def pagure(**fields: Any) -> str:
    return json.dumps({"topic": PAGURE, "body": PUSH | fields})


MALFORMED: dict[str, str | bytes] = {
    "nothing": "",
    "blanks": " \n\t",
    "truncated": commit()[:-20],
    "truncated in a string": commit()[:60],
    "two objects": commit() + commit(),
    "trailing words": commit() + " and more",
    "single quotes": "{'commit': {}}",
    "key=value lines": "repo=dos2unix\nbranch=f41\n",
    "a page of HTML": "<html><body>502 Bad Gateway</body></html>",
    "no UTF-8": b'{"commit": "\xff\xfe"}',
    "UTF-16": commit().encode("utf-16"),
    "a raw NUL": commit().replace("jane", "ja\0ne"),
    "a raw newline in a string": commit().replace("jane", "ja\nne"),
    "a thousand brackets": "[" * 1000 + "]" * 1000,
    "a hundred thousand brackets": "[" * 100_000,
    "a hundred thousand objects": '{"commit":' * 100_000,
    "a number of 10,000 digits": '{"commit": ' + "9" * 10_000 + "}",
    "null": "null",
    "true": "true",
    "a number": "1e999",
    "NaN": "NaN",
    "text": '"commit"',
    "a list": f"[{commit()}]",
    "an empty object": "{}",
    "an envelope of an envelope": json.dumps({"msg": {"msg": {"commit": COMMIT}}}),
    "an envelope of nothing": json.dumps({"topic": TOPIC, "msg": None}),
    "a topic of the wrong type": json.dumps({"topic": ["git.receive"], "msg": {"x": 1}}),
    "a commit of the wrong type": json.dumps({"commit": [COMMIT]}),
    "commit null": json.dumps({"commit": None}),
    "no namespace": without("namespace"),
    "no repo": without("repo"),
    "no rev": json.dumps({"commit": {"repo": "x"}}),
    "no branch": without("branch"),
    "no identity": without("namespace", "repo", "rev", "branch"),
    "repo a number": commit(repo=7),
    "repo a list": commit(repo=["dos2unix"]),
    "repo an object": commit(repo={"name": "dos2unix"}),
    "repo a template": commit(repo={"__prefect_kind": "jinja", "template": "{{ 7*7 }}"}),
    "repo null": commit(repo=None),
    "repo empty": commit(repo=""),
    "repo one dot": commit(repo="."),
    "repo two dots": commit(repo=".."),
    "repo climbs": commit(repo="../x"),
    "repo climbs inside": commit(repo="a/../../etc"),
    "repo absolute": commit(repo="/etc/passwd"),
    "repo with dots inside": commit(repo="a..b"),
    "repo hidden": commit(repo=".git"),
    "repo an option": commit(repo="-rf"),
    "repo with a space": commit(repo="a b"),
    "repo with a newline": commit(repo="dos2unix\n"),
    "repo with a NUL": commit(repo="dos2unix\0.git"),
    "repo with a shell's words": commit(repo="$(reboot)"),
    "repo with an address": commit(repo="x@evil.example:y"),
    "repo escaped": commit(repo="%2e%2e%2fx"),
    "repo reversed": commit(repo=REVERSED),
    "repo with combining characters": commit(repo=ZALGO),
    "repo in full width": commit(repo="\uff44\uff4f\uff53"),
    "repo with half a character": commit(repo="\ud800"),
    "repo with an escape": commit(repo="\x1b[2J"),
    "repo of 300 characters": commit(repo="a" * 300),
    "repo of 10 MB": commit(repo="a" * 10_000_000),
    "namespace climbs": commit(namespace="../.."),
    "namespace a fork's": commit(namespace="forks/joe/rpms"),
    "rev short": commit(rev="abc"),
    "rev of capitals": commit(rev="AB" * 20),
    "rev of 41": commit(rev="a" * 41),
    "rev of other digits": commit(rev="\u0663" * 40),
    "rev a name": commit(rev="HEAD"),
    "rev an option": commit(rev="--upload-pack=x" + "a" * 25),
    "branch climbs": commit(branch="../../x"),
    "branch an option": commit(branch="--force"),
    "branch a template": commit(branch="{{ secret }}"),
    "branch with a shell's words": commit(branch="f41;reboot"),
    "branch with a NUL": commit(branch="f41\0"),
    "branch a list": commit(branch=["f41"]),
    "branch of 300 characters": commit(branch="f" * 300),
    "pagure without repo": pagure(repo=None),
    "pagure with a repo of text": pagure(repo="dos2unix"),
    "pagure without end": pagure(end_commit=None),
    "pagure with a list of commits": pagure(end_commit=["ab" * 20]),
    "pagure without namespace": pagure(repo={"name": "dos2unix", "namespace": None}),
}

#: Strange, but they say which commit they speak of.
READABLE: dict[str, str | bytes] = {
    "a byte order mark": b"\xef\xbb\xbf" + commit().encode(),
    "a patch of 10 MB": commit(patch="+x\n" * 3_400_000),
    "a summary of 10 MB": commit(summary="\x1b[" * 5_000_000),
    "a message of nested objects": commit(message={"a": [{"b": {}}] * 1000}),
    "an infinite number": commit(stats={"total": float("inf")}),
    "a username of the wrong type": commit(username=["jane"]),
    "a username that is a template": commit(username={"__prefect_kind": "jinja"}),
    "a username reversed": commit(username=REVERSED),
    "a username of NULs": commit(username="\0\0"),
    "a username of 300 emoji": commit(username="\U0001f600" * 300),
    "a summary of 4,000 emoji": commit(summary="\U0001f600" * 4000),
    "a summary of combining characters": commit(summary=ZALGO),
    "a summary of quotes": commit(summary='"\\' * 4000),
    "a summary of half characters": commit(summary="\ud800" * 300),
    "a summary with an escape": commit(summary="\x1b]0;owned\x07\x1b[2Jfix"),
    "a summary like Prefect's templates": commit(summary='{{ flow_run.id }} {% include "/etc/passwd" %}'),
    "a path of 10 MB": commit(path="/" * 10_000_000),
    "a path that escapes": commit(path="/srv/forks/\x1b[2J"),
    "a fork that is a number": pagure(repo=PUSH["repo"] | {"parent": 1}),  # type: ignore[operator]
    "a name twice": commit().replace('"repo": "dos2unix"', '"repo": "-rf", "repo": "dos2unix"'),
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_what_names_no_commit_is_rejected_with_its_reason_and_never_raises(text: str | bytes) -> None:
    found = decide_text(text, Settings())
    assert (found.decision, found.rule, found.change) == ("rejected", "malformed", None)
    assert 0 < len(found.reason) < 400
    assert found.reason.isprintable()
    jsonschema.validate(found.as_json(), SCHEMA)


@pytest.mark.parametrize("text", READABLE.values(), ids=READABLE)
def test_what_people_wrote_around_a_commit_stays_text_is_cut_and_rejects_nothing(text: str | bytes) -> None:
    found = decide_text(text, Settings())
    assert found.decision in ("queued", "ignored")
    assert found.change is not None
    assert (found.change.repo, found.change.rev) == ("dos2unix", "ab" * 20)
    assert len(json.dumps(found.change.model_dump())) < 4096
    assert (found.change.username + found.change.summary + found.reason).isprintable()
    jsonschema.validate(found.as_json(), SCHEMA)


def test_a_topic_that_a_terminal_would_obey_is_shown_as_text() -> None:
    found = decide_text(json.dumps({"topic": "\x1b[2J" + "x" * 100_000, "msg": {}}), Settings())
    assert (found.decision, found.rule) == ("ignored", "topic")
    assert found.reason.isprintable()
    assert len(found.reason) < 400
