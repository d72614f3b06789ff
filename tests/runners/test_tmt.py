"""tmt runs plans in a sandbox: it reads what it is given, reaches the guest alone, and its results can be judged."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, TestsError
from distgate.guests.host import LibvirtGuest
from distgate.runners.tmt import TmtSuites, context_of, scrubbed
from distgate.testing.verdict import SuiteRun, judge

PLAN = "discover: {how: fmf}\nexecute: {how: tmt}\n"
TREE = {".fmf/version": "1\n", "plans/ci.fmf": PLAN, "tests/main.fmf": "test: 'true'\n"}


@pytest.fixture
def absent(tmp_path: Path) -> LibvirtGuest:
    """A guest on a port that nobody listens on; enough for plans that never come so far."""
    key = tmp_path / "key"
    key.write_text("no key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return LibvirtGuest("guest-absent", taken.getsockname()[1], key, tmp_path / "console.log")


def tree(tmp_path: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "checkout"


def run(tmp_path: Path, files: Mapping[str, str], guest: LibvirtGuest, plan: str, timeout: float = 60) -> SuiteRun:
    suites = TmtSuites(tree(tmp_path, files), context_of("f44"))
    return suites.run(plan, guest, tmp_path / "artifacts", {}, timeout)


def test_tmt_says_which_plans_are_enabled_where_they_run(tmp_path: Path) -> None:
    adjusted = PLAN + "enabled: false\nadjust: {when: distro == fedora-44, enabled: true}\n"
    files = {
        **TREE,
        "plans/off.fmf": PLAN + "enabled: false\n",
        "plans/mine.fmf": adjusted,
        "plans/theirs.fmf": adjusted.replace("44", "43"),
    }
    suites = TmtSuites(tree(tmp_path, files), context_of("f44"))
    assert suites.enabled() == ("/plans/ci", "/plans/mine")


def test_a_tree_that_tmt_cannot_read_is_the_tests_fault(tmp_path: Path) -> None:
    suites = TmtSuites(tree(tmp_path, {**TREE, "broken.fmf": "a: [\n"}), context_of("f44"))
    with pytest.raises(TestsError, match="cannot read the plans") as refused:
        suites.enabled()
    assert "broken.fmf" in refused.value.evidence


def test_a_plan_that_adjust_disables_is_not_run(tmp_path: Path, absent: LibvirtGuest) -> None:
    files = {**TREE, "plans/ci.fmf": PLAN + "adjust: {when: initiator == fedora-ci, enabled: false}\n"}
    seen = run(tmp_path, files, absent, "/plans/ci")
    assert judge(replace(seen, unreachable=False)).verdict == "NOTHING_RUN"


def test_a_plan_that_tmt_refuses_is_the_tests_fault(tmp_path: Path, absent: LibvirtGuest) -> None:
    seen = run(tmp_path, {**TREE, "plans/ci.fmf": "execute: {how: beakerlib}\n"}, absent, "/plans/ci")
    verdict = judge(replace(seen, unreachable=False))
    assert (verdict.verdict, verdict.blame) == ("ERROR", "tests")
    assert "beakerlib" in verdict.evidence


def test_a_guest_that_does_not_answer_is_our_fault_and_no_key_stays(tmp_path: Path, absent: LibvirtGuest) -> None:
    seen = run(tmp_path, TREE, absent, "/plans/ci", timeout=8)
    verdict = judge(seen, "the console's end")
    assert (seen.timed_out, seen.unreachable) == (True, True)
    assert (verdict.verdict, verdict.blame, verdict.details) == ("ERROR", "infrastructure", "the console's end")
    kept = [path.read_text(errors="replace") for path in (tmp_path / "artifacts").rglob("*") if path.is_file()]
    assert not any("no key" in text for text in kept)


def test_an_artifacts_directory_that_holds_something_is_refused(tmp_path: Path, absent: LibvirtGuest) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "results.yaml").write_text("[]")
    with pytest.raises(ConfigurationError, match="not empty"):
        run(tmp_path, TREE, absent, "/plans/ci")


CONTEXTS = [
    ("rawhide", "fedora-rawhide"),
    ("main", "fedora-rawhide"),
    ("f44", "fedora-44"),
    ("epel9", "epel-9"),
    ("epel-10", "epel-10"),
]


@pytest.mark.parametrize(("branch", "distro"), CONTEXTS)
def test_plans_are_told_where_they_run(branch: str, distro: str) -> None:
    told = context_of(branch, "aarch64")
    assert told == {
        "initiator": "fedora-ci",
        "trigger": "commit",
        "arch": "aarch64",
        "distro": distro,
        "dist-git-branch": branch,
    }


SCRUBBED = [
    ("Run command: /bin/bash -c 'export A=b; export C=d; ls'", "Run command: /bin/bash -c 'ls'"),
    ("'export A='\"'\"'x; y'\"'\"'; ls'", "'ls'"),
    ("export TMT_X=/a/b; cd /c; ./test", "cd /c; ./test"),
    ("nothing to hide", "nothing to hide"),
]


@pytest.mark.parametrize(("log", "shown"), SCRUBBED)
def test_a_log_is_shown_without_environments(log: str, shown: str) -> None:
    assert scrubbed(log) == shown
