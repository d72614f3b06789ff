"""Triage as a table: what came over the bus, and what becomes of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distgate.changes.change import Change
from distgate.changes.rules import RULES, RecordedDecision
from distgate.changes.triage import decide, decide_settled
from distgate.errors import InfrastructureError
from distgate.pipelines import Pipeline
from distgate.settings import Settings

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
    ("a branch called after a bug", PAGURE, PUSH | {"branch": "rhbz#1234567"}, "ignored", "branch"),
    ("a branch called after an account", TOPIC, commit(branch="jane@home/a=b,c"), "ignored", "branch"),
    ("a branch that only begins like one", TOPIC, commit(branch="f41-jane"), "ignored", "branch"),
    ("another namespace", TOPIC, commit(namespace="modules"), "ignored", "namespace"),
    ("a fork by its path", TOPIC, commit(path="/srv/git/repositories/forks/joe/rpms/x.git"), "ignored", "fork"),
    ("a fork by its full name", PAGURE, fork_of(fullname="forks/joe/rpms/dos2unix"), "ignored", "fork"),
    ("a fork by its parent", PAGURE, fork_of(parent={"name": "dos2unix"}), "ignored", "fork"),
    ("another topic", "org.fedoraproject.prod.bodhi.update.comment", {"x": 1}, "ignored", "topic"),
    ("a tag", "org.fedoraproject.prod.pagure.git.tag.creation", PUSH, "ignored", "topic"),
    ("our own message by the topic in its body", "", {"topic": "org.centos.prod.ci.pipeline.x"}, "ignored", "topic"),
    ("a deleted branch", PAGURE, PUSH | {"end_commit": "0" * 40}, "ignored", "deleted"),
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
    assert (found.change is None) == (rule in ("topic", "deleted", "malformed"))
    assert [step.rule for step in found.trace] == [one.name for one in RULES]
    assert [step.rule for step in found.trace if step.outcome == "objected"] == [rule] * (rule != "accepted")


# name, settings, pipeline, repo, branch, rule: the lists are those of the fixture
WATCHED: list[tuple[str, dict[str, Any], Pipeline, str, str, str]] = [
    ("everything", {}, "allpackages", "dos2unix", "f41", "accepted"),
    ("included by a pattern", {"include_packages": ("dos*",)}, "allpackages", "dos2unix", "f41", "accepted"),
    ("not included", {"include_packages": ("bash", "dos")}, "allpackages", "dos2unix", "f41", "package"),
    ("excluded", {"exclude_packages": ("dos2*",)}, "allpackages", "dos2unix", "f41", "package"),
    (
        "excluded and included",
        {"include_packages": ("dos*",), "exclude_packages": ("dos*",)},
        "allpackages",
        "dos2unix",
        "f41",
        "package",
    ),
    ("capitals matter", {"include_packages": ("R",)}, "allpackages", "r", "f41", "package"),
    ("listed", {}, "atomic", "bash", "f41", "accepted"),
    ("listed by a pattern", {}, "atomic", "python3-rpm", "f41", "accepted"),
    ("not listed", {}, "atomic", "dos2unix", "f41", "package"),
    ("listed and excluded", {"exclude_packages": ("bash",)}, "atomic", "bash", "f41", "package"),
    ("listed on another branch", {}, "atomic", "bash", "rawhide", "package"),
    ("rawhide by another name", {}, "atomic", "mesa", "main", "accepted"),
    ("a branch without a list", {}, "atomic", "bash", "f42", "package"),
    ("a comment is no name", {}, "atomic", "zsh", "f41", "package"),
    ("no lists at all", {"package_lists": None}, "atomic", "bash", "f41", "package"),
    ("no directory", {"package_lists": Path("/nonexistent")}, "atomic", "bash", "f41", "package"),
    ("all packages needs no list", {"package_lists": None}, "allpackages", "bash", "f41", "accepted"),
]


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    (tmp_path / "f41.txt").write_text("# the base\nbash # and not zsh\n\n  python3-*\n")
    (tmp_path / "rawhide.txt").write_text("mesa\n")
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "pipeline", "repo", "branch", "rule"), [c[1:] for c in WATCHED], ids=[c[0] for c in WATCHED]
)
def test_packages_are_watched_by_patterns_and_for_atomic_host_by_the_list_of_the_branch(
    lists: Path, settings: dict[str, Any], pipeline: Pipeline, repo: str, branch: str, rule: str
) -> None:
    own = Settings(**{"package_lists": lists} | settings)
    found = decide(TOPIC, commit(repo=repo, branch=branch), own, pipeline=pipeline)
    assert (found.rule, found.pipeline) == (rule, pipeline)


def test_a_package_list_that_cannot_be_read_ignores_nothing(tmp_path: Path) -> None:
    (tmp_path / "f41.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InfrastructureError, match=r"f41\.txt"):
        decide(TOPIC, commit(), Settings(package_lists=tmp_path), pipeline="atomic")


@dataclass(frozen=True)
class Past:
    """A history that is what a case says."""

    stands: RecordedDecision | None = None
    later: str | None = None
    package: int = 0
    every: int = 0

    def recorded(self, change: Change) -> RecordedDecision | None:
        return self.stands

    def newer(self, change: Change, within: float) -> str | None:
        return self.later

    def accepted(self, seconds: float, like: Change | None = None) -> int:
        return self.package if like else self.every


TESTED, WAITS = RecordedDecision("queued", "accepted", 1), RecordedDecision("queued", "settling", 1)
PASSED_OVER = RecordedDecision("ignored", "superseded", 1)
CAPS = {"hourly_cap": 10, "hourly_cap_per_package": 2}

# name, topic, past, settings, decision, rule
PASTS: list[tuple[str, str, Past, dict[str, Any], str, str]] = [
    ("a commit waits", TOPIC, Past(), {}, "queued", "settling"),
    ("a head does not", PAGURE, Past(), {}, "queued", "accepted"),
    ("nobody waits", TOPIC, Past(), {"push_settles": 0}, "queued", "accepted"),
    ("known", TOPIC, Past(TESTED), {}, "ignored", "duplicate"),
    ("a known head", PAGURE, Past(TESTED), {}, "ignored", "duplicate"),
    ("it waits already", TOPIC, Past(WAITS), {}, "ignored", "duplicate"),
    ("what waits is the head", PAGURE, Past(WAITS), {}, "queued", "accepted"),
    ("passed over", TOPIC, Past(PASSED_OVER), {}, "ignored", "duplicate"),
    ("passed over, and the head", PAGURE, Past(PASSED_OVER), {}, "queued", "accepted"),
    ("a fork's commit is merged", PAGURE, Past(RecordedDecision("ignored", "fork", 3)), {}, "queued", "accepted"),
    ("nobody watched it then", TOPIC, Past(RecordedDecision("ignored", "branch", 1)), {}, "queued", "settling"),
    ("shed is no delay", PAGURE, Past(RecordedDecision("shed", "shed", 1)), {}, "ignored", "duplicate"),
    ("a head has nothing newer", PAGURE, Past(later="cd" * 20), {}, "queued", "accepted"),
    ("room under the caps", PAGURE, Past(package=1, every=9), CAPS, "queued", "accepted"),
    ("the package's cap", PAGURE, Past(package=2, every=2), CAPS, "shed", "shed"),
    ("the cap of all", PAGURE, Past(package=0, every=10), CAPS, "shed", "shed"),
    ("no caps", PAGURE, Past(package=1000, every=1000), {}, "queued", "accepted"),
    ("the cap without a wait", TOPIC, Past(every=10), CAPS | {"push_settles": 0}, "shed", "shed"),
]


@pytest.mark.parametrize(
    ("topic", "past", "settings", "decision", "rule"), [c[1:] for c in PASTS], ids=[c[0] for c in PASTS]
)
def test_what_came_before_decides_about_what_comes_now(
    topic: str, past: Past, settings: dict[str, Any], decision: str, rule: str
) -> None:
    body = PUSH if topic == PAGURE else commit()
    found = decide(topic, body, Settings(**settings), past)
    assert (found.decision, found.rule) == (decision, rule)
    assert found.head == (topic == PAGURE)


@pytest.mark.parametrize(
    ("past", "settings", "rule"),
    [
        (Past(), {}, "accepted"),
        (Past(later="cd" * 20), {}, "superseded"),
        (Past(later="cd" * 20, every=10), CAPS, "superseded"),
        (Past(every=10), CAPS, "shed"),
        (Past(TESTED), {}, "accepted"),
    ],
)
def test_a_push_that_has_settled_is_tested_at_its_head_if_the_caps_have_room(
    past: Past, settings: dict[str, Any], rule: str
) -> None:
    change = Change.model_validate({name: COMMIT[name] for name in ("namespace", "repo", "rev", "branch")})
    assert decide_settled(change, Settings(**settings), past).rule == rule


def test_without_a_ledger_the_rules_that_need_it_are_not_asked_and_say_so() -> None:
    trace = decide(TOPIC, commit(), Settings()).trace
    silent = {step.rule: step.sentence for step in trace if step.outcome == "not-asked"}
    assert set(silent) == {"duplicate", "superseded", "shed"}
    assert all(sentence.startswith("needs the ledger") for sentence in silent.values())


def test_every_rule_has_a_sentence_and_a_row_in_which_it_objects() -> None:
    objected = {c[4] for c in CASES} | {c[5] for c in WATCHED} | {c[5] for c in PASTS} | {"superseded"}
    assert objected >= {rule.name for rule in RULES}
    assert all(rule.sentence.endswith(".") for rule in RULES)


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
