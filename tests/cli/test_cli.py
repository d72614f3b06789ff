"""The command line: what it says about a user's mistakes, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from distgate.process import Completed, run

PUSH = Path(__file__).parents[1] / "data/messages/allpackages/org.fedoraproject.prod.git.receive.php-simplepie.json"


def distgate(*words: str, stdin: str = "", **settings: str) -> Completed:
    own = f"from distgate.cli.main import main; main({list(words)!r})"
    env = {f"DISTGATE_{name}": value for name, value in settings.items()}
    return run([sys.executable, "-c", own], timeout=60, stdin=stdin, env=env, allowed=range(256), split_errors=True)


# words, standard input, settings, a part of what standard error says
MISTAKES: list[tuple[list[str], str, dict[str, str], str]] = [
    (["explain", "/nonexistent"], "", {}, "cannot read /nonexistent"),
    (["explain", str(PUSH)], "", {"SWEEP_AFTER": "soon"}, "the setting DISTGATE_SWEEP_AFTER is wrong"),
    (["explain", str(PUSH)], "", {"BRANCHES": "f41"}, "branches"),
    (["lab", "status"], "", {"SWEEP_AFTER": "soon"}, "the setting DISTGATE_SWEEP_AFTER is wrong"),
    (["lab", "status", "--state", "/nonexistent"], "", {}, "no lab is up in /nonexistent"),
    (["messages", "render", "-"], "nonsense", {}, "- is not JSON"),
    (["messages", "render", "-"], "[" * 100_000, {}, "- is not JSON"),
    (["messages", "render", "-"], "[]", {}, "the facts do not fit"),
    (["messages", "render", "-"], '{"suffix": "\\ud800"}', {}, "the facts do not fit"),
    (["explain", "--nonsense", str(PUSH)], "", {}, "No such option"),
    (["nonsense"], "", {}, "No such command"),
]


@pytest.mark.parametrize(("words", "stdin", "settings", "said"), MISTAKES)
def test_a_users_mistake_is_a_sentence_and_status_2(
    words: list[str], stdin: str, settings: dict[str, str], said: str
) -> None:
    ended = distgate(*words, stdin=stdin, **settings)
    assert ended.returncode == 2
    assert said in ended.errors
    assert "Traceback" not in ended.errors
    assert ended.output == ""


@pytest.mark.parametrize(
    ("text", "decision"),
    [
        (PUSH.read_text(), "queued"),
        ("{}", "rejected"),
        ("nonsense", "rejected"),
        ("[" * 100_000, "rejected"),
        ('{"commit": {"repo": "\\ud800\\u001b[2J"}}', "rejected"),
    ],
)
def test_explain_prints_one_object_and_ends_with_0_for_every_decision(text: str, decision: str) -> None:
    ended = distgate("explain", "-", "--json", stdin=text)
    assert ended.returncode == 0
    assert json.loads(ended.output)["decision"] == decision
    assert "\x1b" not in distgate("explain", "-", stdin=text).output


def test_an_error_that_nobody_foresaw_is_never_mistaken_for_a_verdict() -> None:
    script = 'exec "$0" -m distgate.cli explain - <&-'
    ended = run(["sh", "-c", script, sys.executable], timeout=60, allowed=range(256), split_errors=True)
    assert ended.returncode == 2
    assert "AttributeError" in ended.errors
