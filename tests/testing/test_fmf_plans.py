"""The plans that are found are those that tmt itself lists."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.process import run
from distgate.testing.discovery import discover

PLAN = "execute: {how: tmt}\n"
IMPORT = "plan: {import: {url: 'https://forge.example/tests', name: /there}}\n"


@dataclass(frozen=True)
class Tree:
    files: dict[str, str]
    plans: list[str]
    links: dict[str, str] = field(default_factory=dict)


TREES = {
    "hidden metadata that the configuration includes": Tree(
        {
            ".fmf/config": "explore: {include: [.plans, .hidden.fmf]}\n",
            ".plans/ci.fmf": PLAN,
            ".other/ci.fmf": PLAN,
            ".hidden.fmf": PLAN,
        },
        ["/.hidden", "/.plans/ci"],
    ),
    "a directory reached through a link": Tree(
        {"plans/ci.fmf": PLAN, "plans/main.fmf": "summary: x\n"}, ["/other/ci", "/plans/ci"], {"other": "plans"}
    ),
    "a hidden directory reached through a link": Tree({".plans/ci.fmf": PLAN}, ["/plans/ci"], {"plans": ".plans"}),
    "a link to the directory above": Tree({"a/ci.fmf": PLAN}, ["/a/ci"], {"a/up": ".."}),
    "two links in a circle": Tree(
        {"a/one.fmf": PLAN, "b/two.fmf": PLAN},
        ["/a/b/a/one", "/a/b/two", "/a/one", "/b/two"],
        {"a/b": "../b", "b/a": "../a"},
    ),
    "a file that is a link": Tree({"ci.fmf": PLAN}, ["/ci", "/other"], {"other.fmf": "ci.fmf"}),
    "imports that are added to": Tree(
        {"main.fmf": IMPORT, "a.fmf": "plan+: {import+: {name: /a}}\n", "b.fmf": "summary: b\n"}, ["/a", "/b"]
    ),
    "a plan by addition": Tree({"ci.fmf": "/a: {plan+: {import+: {name: /x, url: y}}}\n/b: {test: ls}\n"}, ["/ci/a"]),
    "rules of adjust that are added": Tree(
        {"main.fmf": "adjust: [{summary: x}]\n", "ci.fmf": "adjust+: [{execute: {how: tmt}}]\n"}, ["/ci"]
    ),
    "rules that hold somewhere": Tree(
        {"ci.fmf": "adjust: [{when: arch == s390x, execute: {how: tmt}}]\n/a: {execute: {how: tmt}}\n/b:\n"},
        ["/ci/a"],
    ),
    "a plan that is taken away": Tree({"ci.fmf": IMPORT + "/a: {plan-: [import]}\n/b: {}\n"}, ["/ci/a", "/ci/b"]),
    "names, directives and inheritance": Tree(
        {
            "main.fmf": "summary: x\n",
            "ci.fmf": PLAN + "/: {select: true}\n/a/b: {}\n/c: {/: {inherit: false}, test: ls}\n",
            "plans/main.fmf": PLAN,
            "plans/deep/one.fmf": "",
            "sub/.fmf/version": "1\n",
            "sub/ci.fmf": PLAN,
        },
        ["/ci", "/ci/a/b", "/plans/deep/one"],
    ),
    "words of YAML 1.2": Tree({"ci.fmf": "on: 1\n" + PLAN}, ["/ci"]),
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_the_plans_are_those_that_tmt_lists(tree: Tree, tmp_path: Path) -> None:
    for name, text in {".fmf/version": "1\n", **tree.files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, target in tree.links.items():
        (tmp_path / name).symlink_to(target)
    plans = discover(tmp_path)
    assert [suite.name for suite in (*plans.suites, *plans.unselected)] == tree.plans
    tmt = [sys.executable, "-m", "tmt", "--root", tmp_path, "plan", "ls", "--shallow"]
    assert sorted(run(tmt, timeout=120, split_errors=True).output.split()) == tree.plans
