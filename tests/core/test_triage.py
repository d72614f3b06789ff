"""Triage as a table: what came over the bus, and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distgate.change import Change
from distgate.settings import Settings
from distgate.triage import decide

DATA = Path(__file__).parents[1] / "data/messages"
TOPIC = "org.fedoraproject.prod.git.receive"
PAGURE = "org.fedoraproject.prod.pagure.git.receive"
COMMIT = {
    "namespace": "rpms",
    "repo": "dos2unix",
    "rev": "ab" * 20,
    "branch": "f41",
    "username": "jane",
    "summary": "Update",
    "path": "/srv/git/repositories/rpms/dos2unix.git",
}
PUSH = {
    "repo": {"namespace": "rpms", "name": "dos2unix", "fullname": "rpms/dos2unix", "parent": None},
    "branch": "refs/heads/f41",
    "end_commit": "ab" * 20,
    "agent": "jane",
}


def commit(**fields: Any) -> dict[str, Any]:
    return {"commit": COMMIT | fields}


def fork_of(**fields: Any) -> dict[str, Any]:
    return PUSH | {"repo": PUSH["repo"] | fields}  # type: ignore[operator]


CASES: list[tuple[str, str, Any, str, str]] = [
    ("a release branch", TOPIC, commit(), "queued", "accepted"),
    ("rawhide", TOPIC, commit(branch="rawhide"), "queued", "accepted"),
    ("main is rawhide", TOPIC, commit(branch="main"), "queued", "accepted"),
    ("master is rawhide", TOPIC, commit(branch="master"), "queued", "accepted"),
    ("staging topics too", "org.fedoraproject.stg.git.receive", commit(), "queued", "accepted"),
    ("no topic, as in a file", "", commit(), "queued", "accepted"),
    ("a fedmsg envelope", "", {"topic": TOPIC, "msg": commit()}, "queued", "accepted"),
    ("a dumped message", "", {"topic": TOPIC, "body": commit(), "id": "x"}, "queued", "accepted"),
    ("a bare commit", "", COMMIT, "queued", "accepted"),
    ("unknown fields", TOPIC, commit(patch="x" * 1000, seen=False, colour="red"), "queued", "accepted"),
    ("agent at the top", TOPIC, {"agent": "joe", **commit(username=None)}, "queued", "accepted"),
    ("pagure", PAGURE, PUSH, "queued", "accepted"),
    ("an old release", TOPIC, commit(branch="f9"), "ignored", "branch"),
    ("epel", TOPIC, commit(branch="epel9"), "ignored", "branch"),
    ("eln", TOPIC, commit(branch="eln"), "ignored", "branch"),
    ("a private branch", TOPIC, commit(branch="private-jane-f41"), "ignored", "branch"),
    ("a branch that only begins like one", TOPIC, commit(branch="f41-jane"), "ignored", "branch"),
    ("another namespace", TOPIC, commit(namespace="modules"), "ignored", "namespace"),
    ("a fork by its path", TOPIC, commit(path="/srv/git/repositories/forks/joe/rpms/x.git"), "ignored", "fork"),
    ("a fork by its full name", PAGURE, fork_of(fullname="forks/joe/rpms/dos2unix"), "ignored", "fork"),
    ("a fork by its parent", PAGURE, fork_of(parent={"name": "dos2unix"}), "ignored", "fork"),
    ("another topic", "org.fedoraproject.prod.bodhi.update.comment", {"x": 1}, "ignored", "topic"),
    ("a tag", "org.fedoraproject.prod.pagure.git.tag.creation", PUSH, "ignored", "topic"),
    ("a list", TOPIC, [1, 2], "rejected", "malformed"),
    ("text", TOPIC, "hello", "rejected", "malformed"),
    ("nothing", TOPIC, None, "rejected", "malformed"),
    ("no commit", TOPIC, {}, "rejected", "malformed"),
    ("a commit of the wrong type", TOPIC, {"commit": "abc"}, "rejected", "malformed"),
    ("no rev", TOPIC, commit(rev=None), "rejected", "malformed"),
    ("a short rev", TOPIC, commit(rev="abc"), "rejected", "malformed"),
    ("a rev with an option in it", TOPIC, commit(rev="--upload-pack=x" + "a" * 25), "rejected", "malformed"),
    ("a rev with a newline", TOPIC, commit(rev="ab" * 20 + "\n"), "rejected", "malformed"),
    ("a number as a name", TOPIC, commit(repo=7), "rejected", "malformed"),
    ("a path as a name", TOPIC, commit(repo="../x"), "rejected", "malformed"),
    ("an option as a name", TOPIC, commit(repo="-rf"), "rejected", "malformed"),
    ("a name with a space", TOPIC, commit(repo="a b"), "rejected", "malformed"),
    ("a name of 300 characters", TOPIC, commit(repo="a" * 300), "rejected", "malformed"),
    ("a name with a NUL", TOPIC, commit(repo="a\0b"), "rejected", "malformed"),
    ("a name that reads backwards", TOPIC, commit(repo="a\u202eb"), "rejected", "malformed"),
    ("an empty name", TOPIC, commit(repo=""), "rejected", "malformed"),
    (
        "a dictionary that Prefect would evaluate",
        TOPIC,
        commit(repo={"__prefect_kind": "jinja"}),
        "rejected",
        "malformed",
    ),
    ("a namespace of 100 characters", TOPIC, commit(namespace="n" * 100), "ignored", "namespace"),
    ("a summary with half a character", TOPIC, commit(summary="\ud800"), "queued", "accepted"),
    ("a username of blanks", TOPIC, commit(username=" \t"), "queued", "accepted"),
    ("a branch that climbs", TOPIC, commit(branch="f41/../../x"), "rejected", "malformed"),
    ("pagure without a repository", PAGURE, {"end_commit": "ab" * 20}, "rejected", "malformed"),
]


@pytest.mark.parametrize(("topic", "body", "decision", "rule"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_message_is_decided_by_the_first_rule_that_speaks(topic: str, body: Any, decision: str, rule: str) -> None:
    found = decide(topic, body, Settings())
    assert (found.decision, found.rule) == (decision, rule)
    assert found.reason
    assert (found.change is None) == (decision == "rejected" or rule == "topic")


@pytest.mark.parametrize("path", sorted(DATA.glob("*/org.fedora*.json")), ids=lambda p: f"{p.parent.name}:{p.stem}")
def test_the_documents_pushes_are_queued(path: Path) -> None:
    found = decide("", json.loads(path.read_text()), Settings()).as_json()
    assert found["decision"] == "queued"
    assert set(found["change"]) == {"namespace", "repo", "rev", "branch", "username"}
    assert all(found["change"].values())


def test_both_messages_of_one_push_are_the_same_change() -> None:
    one, other = decide(TOPIC, commit(), Settings()).change, decide(PAGURE, PUSH, Settings()).change
    assert one is not None
    assert other is not None
    assert one.key == other.key


def test_a_long_summary_is_cut_and_a_patch_never_travels() -> None:
    change = decide(TOPIC, commit(summary="é" * 5000, patch="x" * 10_000_000), Settings()).change
    assert change is not None
    assert len(change.model_dump_json().encode()) < 4000


def test_what_people_wrote_is_one_line_that_no_terminal_obeys() -> None:
    change = decide(TOPIC, commit(summary="\x1b[2Jfix\nall \u202e", username="\x1b]0;me\x07jane"), Settings()).change
    assert change is not None
    assert (change.summary, change.username) == ("fix all", "jane")


@pytest.mark.parametrize("wrong", [{"repo": "../x"}, {"repo": "-rf"}, {"namespace": "a/b"}, {"branch": "-f41"}])
def test_a_change_that_is_given_by_hand_is_held_to_the_same_names(wrong: dict[str, str]) -> None:
    right = {"namespace": "rpms", "repo": "dos2unix", "rev": "ab" * 20, "branch": "f41"}
    assert Change.model_validate(right).key
    with pytest.raises(ValidationError):
        Change.model_validate(right | wrong)
