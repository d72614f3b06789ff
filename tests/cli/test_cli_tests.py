"""``distgate tests`` and ``distgate judge``: the words that scripts hold on to, and their exit statuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from distgate.process import Completed, run


def distgate(*words: str | Path) -> Completed:
    own = f"from distgate.cli.main import main; main({[str(word) for word in words]!r})"
    return run([sys.executable, "-c", own], timeout=60, allowed=range(256), split_errors=True)


def tree(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / {"tests": "tests/tests.yml", "fmf": ".fmf/version", "plan": "plans/ci.fmf"}[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


PLAY = "- hosts: localhost\n  tags: [classic]\n"
PLAN = "execute: {how: tmt}\n"
SUITE = "tests/tests.yml"

# files, options, kind, names, a part of the reason, second kind and names
FOUND: list[tuple[dict[str, str], list[str], str | None, list[str], str, tuple[str, list[str]] | None]] = [
    ({}, [], None, [], "no tests", None),
    ({"tests": PLAY}, [], "sti", [SUITE], "", None),
    ({"tests": PLAY}, ["--tag", "atomic"], "sti", [], "nothing selected", None),
    ({"tests": PLAY}, ["--namespace", "tests"], None, [], "no tests", None),
    ({"tests": "["}, [], "sti", [SUITE], "", None),
    ({"fmf": "1\n", "plan": PLAN}, [], "tmt", ["/plans/ci"], "", None),
    ({"fmf": "1\n", "plan": PLAN, "tests": PLAY}, [], "tmt", ["/plans/ci"], "", ("sti", [SUITE])),
    ({"fmf": "1\n", "plan": "enabled: false\n" + PLAN}, [], "tmt", [], "none is enabled", None),
]


@pytest.mark.parametrize(("files", "options", "kind", "names", "reason", "other"), FOUND)
def test_tests_prints_one_object(
    files: dict[str, str],
    options: list[str],
    kind: str | None,
    names: list[str],
    reason: str,
    other: tuple[str, list[str]] | None,
    tmp_path: Path,
) -> None:
    ended = distgate("tests", tree(tmp_path, **files), *options, "--json")
    said: dict[str, Any] = json.loads(ended.output)
    assert (ended.returncode, ended.errors) == (0, "")
    assert (said["kind"], [suite["name"] for suite in said["suites"]]) == (kind, names)
    assert all(suite["path"] for suite in said["suites"])
    assert reason in said["reason"]
    assert bool(said["reason"]) is not bool(names)
    second = said["other"] and (said["other"]["kind"], [suite["name"] for suite in said["other"]["suites"]])
    assert second == other


def test_tests_tells_people_what_cannot_be_read(tmp_path: Path) -> None:
    ended = distgate("tests", tree(tmp_path, tests="- hosts: ["))
    assert (ended.returncode, ended.errors) == (0, "")
    assert ended.output.startswith("sti tests/tests.yml (tests/tests.yml line 1 column 11:")


FAILED = "results:\n- {test: one, result: pass}\n- {test: two, result: fail, logs: [two.log]}\n"
JUDGED: list[tuple[dict[str, str], list[str], str, str | None]] = [
    ({"results.yml": FAILED}, ["--rc", "0"], "FAIL", "package"),
    ({"results.yml": "results: []\n", "b/results.yml": FAILED}, ["--rc", "0"], "FAIL", "package"),
    ({"results.yml": "results: null\n"}, ["--rc", "0"], "ERROR", "tests"),
    ({"test.log": "PASS a\n"}, ["--rc", "0"], "PASS", None),
    ({}, ["--rc", "0"], "NOTHING_RUN", "tests"),
    ({}, ["--rc=-9", "--timed-out"], "ERROR", "tests"),
    ({"test.log": "PASS a\n"}, ["--rc", "4", "--unreachable"], "ERROR", "infrastructure"),
    ({"results.yaml": "- {name: /a, result: warn}\n"}, ["--rc", "1", "--kind", "tmt"], "FAIL", "tests"),
]


@pytest.mark.parametrize(("files", "options", "verdict", "blame"), JUDGED)
def test_judge_ends_with_0_for_every_verdict(
    files: dict[str, str], options: list[str], verdict: str, blame: str | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    ended = distgate("judge", tmp_path, *options, "--json")
    said = json.loads(ended.output)
    assert (ended.returncode, ended.errors) == (0, "")
    assert (said["verdict"], said["blame"]) == (verdict, blame)
    assert said["evidence"]
    assert distgate("judge", tmp_path, *options).output.startswith(verdict)


def test_judge_lists_the_tests_with_their_logs(tmp_path: Path) -> None:
    (tmp_path / "results.yml").write_text(FAILED)
    said = json.loads(distgate("judge", tmp_path, "--rc", "2", "--json").output)
    assert said["tests"] == [
        {"name": "one", "result": "pass", "logs": [], "note": ""},
        {"name": "two", "result": "fail", "logs": ["two.log"], "note": ""},
    ]


def test_judge_shows_the_console_of_a_hang(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text("[  99.9] Kernel \x1b[31mpanic\n")
    (tmp_path / "ansible.log").write_text("x | TASK [Wait for it] ******\n")
    words = ["--rc", "254", "--timed-out", "--console", tmp_path / "console.log", "--json"]
    said = json.loads(distgate("judge", tmp_path, *words).output)
    assert said["details"] == "[  99.9] Kernel panic\n"
    assert "last seen: task 'Wait for it'" in said["evidence"]


WRONG: list[tuple[list[str], str]] = [
    (["tests", "/nonexistent"], "/nonexistent is no directory"),
    (["tests"], "Missing argument"),
    (["judge", "/nonexistent", "--rc", "0"], "/nonexistent is no directory"),
    (["judge", "/tmp"], "Missing option"),
    (["judge", "/tmp", "--rc", "many"], "Invalid value"),
]


@pytest.mark.parametrize(("words", "said"), WRONG)
def test_a_wrong_call_ends_with_2_and_no_traceback(words: list[str], said: str) -> None:
    ended = distgate(*words)
    assert (ended.returncode, ended.output) == (2, "")
    assert said in ended.errors
    assert "Traceback" not in ended.errors
