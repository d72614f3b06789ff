"""The commands that ask the ledger: what they print, and how they end."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distgate.bus.announce import Announcer
from distgate.changes.change import Change
from distgate.changes.replay import change_of_file
from distgate.changes.triage import Decision
from distgate.cli.ledger import parse_since
from distgate.cli.nearby_lab import FIELDS, PATHS
from distgate.errors import ConfigurationError
from distgate.ledger.ledger import Ledger
from distgate.process import Completed, run
from distgate.runs.search import run_named
from distgate.settings import Settings
from lab.world import World

RUN = "0b6f7c1e-7a34-4f4c-9d4e-0d5e6a1f2b3c"
TESTED = Change(namespace="rpms", repo="dos2unix", rev="ab" * 20, branch="f41", username="jane")
IGNORED = TESTED.model_copy(update={"branch": "epel9"})
EXAMPLES = Path(__file__).parents[1] / "data/messages/allpackages"
PUSH = EXAMPLES / "org.fedoraproject.prod.git.receive.php-simplepie.json"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a ledger with one commit on two branches: tested on one, ignored on the other."""
    return written(f"sqlite:///{tmp_path_factory.mktemp('cli')}/ledger.db")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def asked(request: pytest.FixtureRequest) -> str:
    """The URL of such a ledger, in each of the databases."""
    if request.param == "sqlite":
        found: str = request.getfixturevalue("ledger")
        return found
    return written(request.getfixturevalue("empty_schema")())


def written(url: str) -> str:
    ledger = Ledger(url)
    announcer = Announcer(ledger, Settings())
    ledger.record(TESTED, Decision("queued", "is tested", "accepted", change=TESTED))
    ledger.record(TESTED, Decision("queued", "is tested", "accepted", change=TESTED))
    ledger.record(IGNORED, Decision("ignored", "branch epel9 is not watched", "branch", change=IGNORED))
    announcer.ignored(IGNORED)
    ledger.claim(TESTED, RUN, "http://ui/run")
    announcer.stage(RUN, "package", "queued")
    ledger.sent(ledger.messages_of(RUN)[0].seq)
    announcer.close(RUN, "FAILURE")
    ledger.claim(TESTED, RUN, "http://ui/run")
    ledger.close()
    return url


def distgate(*words: str, url: str = "", **settings: str) -> Completed:
    own = f"from distgate.cli.main import main; main({list(words)!r})"
    env = {f"DISTGATE_{name}": value for name, value in settings.items()}
    if url:
        env["DISTGATE_LEDGER_URL"] = url
    return run([sys.executable, "-c", own], timeout=60, env=env, allowed=range(256), split_errors=True)


@pytest.mark.parametrize(
    ("repo", "rev"), [("dos2unix", "ab" * 20), ("rpms/dos2unix", "abababa")], ids=["full", "namespace and short hash"]
)
def test_why_tells_decision_runs_verdicts_and_messages(asked: str, repo: str, rev: str) -> None:
    told = distgate("why", repo, rev, url=asked)
    assert told.returncode == 0
    for words in (
        "queued: is tested (rule accepted)",
        "seen 2 times",
        "ignored: branch epel9 is not watched (rule branch)",
        "attempt 1",
        "verdict: FAILURE",
        "verdict: none yet",
        "not sent yet",
        "package.ignored",
    ):
        assert words in told.output


def test_why_as_json_has_the_same(asked: str) -> None:
    story = json.loads(distgate("why", "dos2unix", "abab", "--json", url=asked).output)
    assert story["known"]
    tested, ignored = story["changes"]
    assert (tested["decision"], tested["rule"], tested["seen"]) == ("queued", "accepted", 2)
    assert (ignored["decision"], ignored["rule"], ignored["reason"]) == (
        "ignored",
        "branch",
        "branch epel9 is not watched",
    )
    assert [one["topic"].rpartition(".")[2] for one in ignored["messages"]] == ["ignored"]
    first, second = tested["runs"][0]["attempts"]
    assert (first["build_id"], first["verdict"]) == (RUN, "FAILURE")
    assert [(one["status"], bool(one["sent"])) for one in first["messages"]] == [
        ("SUCCESS", True),
        ("FAILURE", False),
        ("FAILURE", False),
    ]
    assert second == {"build_id": f"{RUN}.2", "verdict": None, "messages": []}


@pytest.mark.parametrize("repo", ["nosuch", "modules/dos2unix", "os2unix", "%"])
def test_a_commit_that_nobody_saw_is_a_sentence_and_status_1(ledger: str, repo: str) -> None:
    told = distgate("why", repo, "abab", url=ledger)
    assert (told.returncode, told.output) == (1, "")
    assert f"the ledger knows no commit abab of {repo}" in told.errors
    assert json.loads(distgate("why", repo, "abab", "--json", url=ledger).output) == {"known": False, "changes": []}


def test_the_audit_ends_with_0_when_the_books_balance(asked: str) -> None:
    good = distgate("audit", "--json", url=asked)
    assert good.returncode == 0, good.output
    said = json.loads(good.output)
    assert (said["balanced"], said["problems"], said["runs"]["running"]) == (True, [], 1)
    assert said["triggers"] | {"run": 1, "ignored": 1, "duplicate": 1, "total": 3} == said["triggers"]
    assert (said["messages"]["confirmed"], said["messages"]["queued"], len(said["queued"])) == (1, 3, 3)


def test_books_that_do_not_balance_are_told_with_their_problems_and_status_1(ledger_url: str) -> None:
    bad = Ledger(ledger_url)
    bad.claim(TESTED, RUN, "http://ui/run")
    Announcer(bad, Settings()).close(RUN, "SUCCESS")
    bad.close()
    told = distgate("audit", url=ledger_url)
    assert told.returncode == 1
    assert f"problem: {RUN}: it ended as SUCCESS without a message of package" in told.output
    assert not json.loads(distgate("audit", "--json", url=ledger_url).output)["balanced"]
    assert distgate("audit", "--since", "2099-01-01", url=ledger_url).returncode == 0


# words, a part of what standard error says
MISTAKES: list[tuple[list[str], str]] = [
    (["why", "bash", "HEAD"], "'HEAD' is no commit"),
    (["audit", "--since", "yesterday"], "'yesterday' is no time"),
    (["audit", "--since", "\N{SUPERSCRIPT TWO}h"], "is no time"),
    (["audit", "--since", "9" * 400 + "d"], "is no time"),
    (["replay", "x" * 400], "File name too long"),
    (["replay", "/nonexistent.json"], "cannot read /nonexistent.json"),
    (["replay", "00000000-0000-0000-0000-000000000000"], "the ledger knows no run"),
    (["replay", str(EXAMPLES.parent / "index.json")], "would be rejected"),
    (["triggers", "dead", "requeue"], "which dead letters?"),
    (["triggers", "dead", "requeue", "--all", "one"], "which dead letters?"),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(case[0][:3]) for case in MISTAKES])
def test_a_users_mistake_is_a_sentence_and_ends_with_2(ledger: str, words: list[str], said: str) -> None:
    told = distgate(*words, url=ledger)
    assert (told.returncode, told.output) == (2, "")
    assert said in told.errors
    assert "Traceback" not in told.errors


# what is set wrong, a command that needs it, a part of what standard error says
SETTINGS: list[tuple[dict[str, str], list[str], str]] = [
    ({"LEDGER_URL": "sqlite:ledger.db"}, ["audit"], "the ledger cannot be opened"),
    ({"LEDGER_URL": "postgresql//jane:s3cret@db/distgate"}, ["audit"], "the ledger cannot be opened"),
    ({"LEDGER_URL": "postgresql://jane:s3cret@db:port/distgate"}, ["audit"], "no port that is a number"),
    ({"AMQP_URL": "amqp://jane:s3cret#1@bus/"}, ["triggers", "dead", "list"], "this is no AMQP URL"),
    ({"AMQP_URL": "amqp://jane:s3cret@127.0.0.1:1/"}, ["triggers", "dead", "list"], "the broker cannot be reached"),
    ({"PREFECT_API_URL": "http://[::1"}, ["replay", str(PUSH)], "http://[::1 is no URL"),
    ({"PREFECT_API_URL": "localhost:4200/api"}, ["replay", str(PUSH)], "localhost:4200/api is no URL"),
]


@pytest.mark.parametrize(
    ("wrong", "words", "said"), SETTINGS, ids=[next(iter(case[0].values())) for case in SETTINGS]
)
def test_a_wrong_setting_is_a_sentence_and_gives_no_secret_away(
    ledger: str, wrong: dict[str, str], words: list[str], said: str
) -> None:
    told = distgate(*words, **({"LEDGER_URL": ledger, "BRANCHES": '["*"]'} | wrong))
    assert (told.returncode, told.output) == (2, "")
    assert said in told.errors
    for never in ("Traceback", "s3cret"):
        assert never not in told.errors


def test_asking_a_ledger_that_is_not_there_makes_none(tmp_path: Path) -> None:
    told = distgate("audit", url=f"sqlite:///{tmp_path}/none.db")
    assert told.returncode == 2
    assert "there is no ledger" in told.errors
    assert list(tmp_path.iterdir()) == []


def test_with_no_ledger_named_the_lab_beside_is_asked(ledger: str, tmp_path: Path) -> None:
    written = {*FIELDS.values(), *PATHS.values()}
    assert written <= set(World.__dataclass_fields__)
    world = dict.fromkeys(written, "x") | {"ledger_url": ledger}
    (tmp_path / "world.json").write_text(json.dumps(world))
    told = distgate("audit", "--json", LAB_STATE=str(tmp_path))
    assert told.returncode == 0
    assert json.loads(told.output)["balanced"]
    assert f"of the lab in {tmp_path}" in told.errors
    assert "of the lab" not in distgate("audit", url=ledger, LAB_STATE=str(tmp_path)).errors


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90m", 1_000_000 - 5400),
        ("7d", 1_000_000 - 604_800),
        ("1970-01-02", 86400),
        ("1970-01-02T01:00", 90000),
        ("1970-01-02T01:00+01:00", 86400),
    ],
)
def test_since_is_a_time_or_a_time_ago(text: str, seconds: float) -> None:
    assert parse_since(text, 1_000_000) == seconds


@pytest.mark.parametrize(
    ("text", "run_id"),
    [
        (RUN, RUN),
        (f"{RUN}.2", RUN),
        (RUN[:8], RUN[:8]),
        (RUN[:3], None),
        (f"http://127.0.0.1:4200/runs/flow-run/{RUN}", RUN),
        ("push.json", None),
        ("-", None),
    ],
)
def test_a_run_is_named_by_its_id_its_beginning_its_build_id_or_its_page(text: str, run_id: str | None) -> None:
    assert run_named(text) == run_id


def test_a_file_to_replay_is_a_push_or_a_message_of_ours() -> None:
    own = Settings()
    pushed, pipeline = change_of_file(PUSH, PUSH.read_bytes(), own)
    assert (pushed.repo, pipeline) == ("php-simplepie", "allpackages")
    ours = EXAMPLES / "org.centos.prod.ci.pipeline.allpackages.complete.json"
    change, pipeline = change_of_file(ours, ours.read_bytes(), own)
    assert (change.repo, change.branch, pipeline) == ("bind", "f28", "allpackages")
    forged = json.loads(ours.read_bytes())["msg"] | {"username": "\x1b[31mjane"}
    assert change_of_file(ours, json.dumps(forged).encode(), own)[0].username == "jane"
    assert change_of_file(ours, json.dumps(forged | {"username": 7}).encode(), own)[0].username == "unknown"
    unwatched = json.dumps({"commit": IGNORED.model_dump()}).encode()
    with pytest.raises(ConfigurationError, match="would be ignored: branch epel9"):
        change_of_file(None, unwatched, own)


ATOMIC = EXAMPLES.parent / "atomic/org.centos.prod.ci.pipeline.compose.complete.json"


def test_a_message_is_replayed_for_the_pipeline_that_said_it_unless_another_is_asked_for(tmp_path: Path) -> None:
    own = Settings(package_lists=tmp_path, pipelines=("atomic", "allpackages"))
    change, pipeline = change_of_file(ATOMIC, ATOMIC.read_bytes(), own)
    assert (change.repo, change.username, pipeline) == ("mesa", "unknown", "atomic")
    assert change_of_file(ATOMIC, ATOMIC.read_bytes(), own, "allpackages") == (change, "allpackages")
    with pytest.raises(ConfigurationError, match=r"would be ignored: there is no package list") as refused:
        change_of_file(PUSH, PUSH.read_bytes(), own)
    assert "--pipeline atomic" in refused.value.hint
    assert change_of_file(PUSH, PUSH.read_bytes(), own, "allpackages")[1] == "allpackages"


def test_why_tells_each_pipelines_answer_to_a_commit(ledger_url: str) -> None:
    ledger = Ledger(ledger_url)
    ledger.record(TESTED, Decision("queued", "is tested", "accepted", change=TESTED))
    ledger.record(TESTED, Decision("ignored", "is not in the list", "package", "atomic", TESTED))
    Announcer(ledger, Settings()).ignored(TESTED, "atomic")
    ledger.close()
    found = json.loads(distgate("why", "dos2unix", "abab", "--json", url=ledger_url).output)["changes"]
    assert [(one["pipeline"], one["decision"]) for one in found] == [("allpackages", "queued"), ("atomic", "ignored")]
    assert [[message["topic"] for message in one["messages"]] for one in found] == [
        [],
        ["org.centos.prod.ci.pipeline.package.ignored"],
    ]
    assert (
        "by jane, atomic\n  ignored: is not in the list" in distgate("why", "dos2unix", "abab", url=ledger_url).output
    )
