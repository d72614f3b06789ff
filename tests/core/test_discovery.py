"""Which tests a checkout brings, layout by layout; each comes from a package or from an attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.discovery import discover

PLAY = "- hosts: localhost\n  tags: [{tags}]\n  tasks: []\n"
CLASSIC = PLAY.format(tags="classic")
ATOMIC = PLAY.format(tags="atomic, container")
TASKS = "- hosts: localhost\n  tasks:\n"
ROLE = "- hosts: localhost\n  roles:\n"
TESTS = "tests/tests.yml"
BOMB = "- &a0 {tags: [x]}\n" + "".join(
    f"- &a{n} {{block: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 40)
)
TAG_BOMB = "- hosts: all\n  vars:\n  - &a0 [lol]\n" + "".join(
    f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)
MERGE_BOMB = "- &a0 {tags: [x], b0: 1}\n" + "".join(
    f"- &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)


@dataclass(frozen=True)
class Layout:
    says: str
    files: dict[str, str]
    kind: str | None
    suites: list[str]
    reason: str = ""
    links: dict[str, str] = field(default_factory=dict)
    namespace: str = "rpms"
    tag: str = "classic"
    problem: str = ""


LAYOUTS = [
    Layout("nothing at all", {}, None, [], "no tests: there is neither"),
    Layout(
        "a tests directory without a playbook", {"tests/a.sh": ""}, None, [], "the directory tests has no playbook"
    ),
    Layout("a playbook of another name", {"tests/main.yml": CLASSIC}, None, [], "no tests"),
    Layout("another suffix", {"tests/tests.yaml": CLASSIC}, None, [], "no tests"),
    Layout("one suite", {TESTS: CLASSIC}, "sti", [TESTS]),
    Layout("tags as a string", {TESTS: CLASSIC.replace("[classic]", "classic")}, "sti", [TESTS]),
    Layout("tags with commas", {TESTS: CLASSIC.replace("[classic]", "atomic, classic")}, "sti", [TESTS]),
    Layout("commas in a list", {TESTS: CLASSIC.replace("[classic]", "['atomic,classic']")}, "sti", [TESTS]),
    Layout("other tags", {TESTS: ATOMIC}, "sti", [], "none has the tag classic (tags: atomic, container)"),
    Layout("another tag asked for", {TESTS: ATOMIC}, "sti", [TESTS], tag="container"),
    Layout("a longer word", {TESTS: PLAY.format(tags="non-classic")}, "sti", [], "tags: non-classic"),
    Layout("always is not classic", {TESTS: PLAY.format(tags="always")}, "sti", [], "tags: always"),
    Layout(
        "no tags", {TESTS: "- hosts: all\n  tasks: []\n"}, "sti", [], "1 suite is there, none has the tag classic"
    ),
    Layout(
        "several suites, sorted, unlike in tags",
        {"tests/tests_b.yml": CLASSIC, "tests/tests-a.yml": CLASSIC, "tests/tests_c.yml": ATOMIC},
        "sti",
        ["tests/tests-a.yml", "tests/tests_b.yml"],
    ),
    Layout("two plays", {TESTS: ATOMIC + CLASSIC}, "sti", [TESTS]),
    Layout("a tagged role", {TESTS: ROLE + "  - {role: standard-test-basic, tags: classic}\n"}, "sti", [TESTS]),
    Layout("roles by name", {TESTS: ROLE + "  - standard-test-basic\n"}, "sti", [], "tags: none"),
    Layout("a tagged task", {TESTS: TASKS + "  - {command: ls, tags: [classic]}\n"}, "sti", [TESTS]),
    Layout(
        "a tagged block in a block",
        {TESTS: TASKS + "  - block:\n    - block: []\n      rescue:\n      - {command: ls, tags: classic}\n"},
        "sti",
        [TESTS],
    ),
    Layout(
        "tagged tasks before and after",
        {TESTS: "- hosts: all\n  pre_tasks: [{command: a, tags: x}]\n  post_tasks: [{command: b, tags: classic}]\n"},
        "sti",
        [TESTS],
    ),
    Layout("an imported playbook", {TESTS: "- import_playbook: one.yml\n", "tests/one.yml": CLASSIC}, "sti", [TESTS]),
    Layout(
        "an import with a collection's name",
        {TESTS: "- ansible.builtin.import_playbook: sub/one.yml\n", "tests/sub/one.yml": CLASSIC},
        "sti",
        [TESTS],
    ),
    Layout("an old include", {TESTS: "- include: one.yml\n", "tests/one.yml": CLASSIC}, "sti", [TESTS]),
    Layout(
        "imported tasks",
        {TESTS: TASKS + "  - import_tasks: one.yml\n", "tests/one.yml": "- {command: ls, tags: classic}\n"},
        "sti",
        [TESTS],
    ),
    Layout(
        "dynamic includes bring no tags",
        {TESTS: TASKS + "  - include_tasks: one.yml\n", "tests/one.yml": "- {command: ls, tags: classic}\n"},
        "sti",
        [],
        "none has the tag",
    ),
    Layout("a tagged include", {TESTS: TASKS + "  - {include_role: {name: x}, tags: classic}\n"}, "sti", [TESTS]),
    Layout(
        "a role of the package",
        {TESTS: ROLE + "  - own\n", "tests/roles/own/tasks/main.yml": "- {command: ls, tags: classic}\n"},
        "sti",
        [TESTS],
    ),
    Layout(
        "an imported role of the package",
        {
            TESTS: TASKS + "  - import_role: {name: own}\n",
            "tests/roles/own/tasks/main.yml": "- import_tasks: more.yml\n",
            "tests/roles/own/tasks/more.yml": "- {command: ls, tags: classic}\n",
        },
        "sti",
        [TESTS],
    ),
    Layout(
        "imports in a circle",
        {TESTS: "- import_playbook: one.yml\n" + CLASSIC, "tests/one.yml": "- import_playbook: tests.yml\n"},
        "sti",
        [TESTS],
    ),
    Layout("a missing import", {TESTS: "- import_playbook: none.yml\n" + CLASSIC}, "sti", [TESTS]),
    Layout("an import by variable", {TESTS: "- import_playbook: '{{ x }}.yml'\n" + CLASSIC}, "sti", [TESTS]),
    Layout("vars as a list", {TESTS: CLASSIC + "  vars:\n  - artifacts: ./artifacts\n"}, "sti", [TESTS]),
    Layout("ansible's own YAML tags", {TESTS: CLASSIC + "  vars: {a: !vault x, b: !unsafe [y]}\n"}, "sti", [TESTS]),
    Layout("odd names", {"tests/tests ü　.yml": CLASSIC}, "sti", ["tests/tests ü　.yml"]),
    Layout("an inventory beside it", {TESTS: CLASSIC, "tests/inventory": "#!/bin/sh\n"}, "sti", [TESTS]),
    Layout("an inventory directory", {TESTS: CLASSIC, "tests/inventory/hosts": "x\n"}, "sti", [TESTS]),
    Layout("a directory named like a suite", {"tests/tests.yml/x": ""}, None, [], "no tests"),
    Layout("tests of the tests namespace", {"tests.yml": CLASSIC}, "sti", ["tests.yml"], namespace="tests"),
    Layout("a root playbook of a package", {"tests.yml": CLASSIC}, None, [], "no tests"),
    Layout("tmt", {".fmf/version": "1\n", "plans/all.fmf": "execute:\n"}, "tmt", [], ".fmf/version says tmt"),
    Layout("tmt and a suite", {".fmf/version": "1\n", TESTS: CLASSIC}, "tmt", [TESTS], "suites listed are those of"),
    Layout("tmt and another suite", {".fmf/version": "1\n", TESTS: ATOMIC}, "tmt", [], "besides, nothing selected"),
    Layout("fmf metadata alone", {TESTS: CLASSIC, "tests/provision.fmf": "\tx"}, "sti", [TESTS]),
    Layout("broken YAML", {TESTS: "- hosts: [\n"}, "sti", [TESTS], problem="tests/tests.yml line 2 column 1"),
    Layout("a tab", {TESTS: "- hosts: x\n\ttags: classic\n"}, "sti", [TESTS], problem="line 2 column 1"),
    Layout(
        "broken YAML in an import",
        {TESTS: CLASSIC + "- import_playbook: sub/one.yml\n", "tests/sub/one.yml": "a: b: c"},
        "sti",
        [TESTS],
        problem="tests/sub/one.yml line 1",
    ),
    Layout("a mapping", {TESTS: "hosts: localhost\n"}, "sti", [TESTS], problem="is not a list of plays"),
    Layout("an empty file", {TESTS: ""}, "sti", [TESTS], problem="is not a list of plays"),
    Layout("control characters", {TESTS: "- \x00\n"}, "sti", [TESTS], problem="tests.yml"),
    Layout("python objects", {TESTS: "- !!python/name:os.system\n"}, "sti", [TESTS], problem="line 1 column 3"),
    Layout("brackets without end", {TESTS: "[" * 5000}, "sti", [TESTS], problem="tests.yml"),
    Layout("a file without end", {TESTS: "#" * (2 << 20)}, "sti", [TESTS], problem="is longer than"),
    Layout(
        "aliases that multiply", {TESTS: "- hosts: all\n  tasks:\n" + BOMB.replace("- &", "  - &")}, "sti", [], "x"
    ),
    Layout("tags that multiply", {TESTS: TAG_BOMB + "  tags: *a39\n"}, "sti", [], "tags: none"),
    Layout("merge keys that multiply", {TESTS: MERGE_BOMB}, "sti", [TESTS], problem="too many merged keys"),
    Layout(
        "an import by ..",
        {TESTS: "- import_playbook: ../../out.yml\n", "../out.yml": CLASSIC},
        "sti",
        [TESTS],
        problem="../../out.yml leads out of the checkout",
    ),
    Layout(
        "a suite that is a link out",
        {"tests/a": "", "../out.yml": CLASSIC},
        "sti",
        [TESTS],
        links={TESTS: "../../out.yml"},
        problem="a link that leads out",
    ),
    Layout(
        "a suite that is a link to nowhere",
        {"tests/a": ""},
        "sti",
        [TESTS],
        links={TESTS: "none"},
        problem="or nowhere",
    ),
    Layout(
        "a suite that is a link inside",
        {"x/one.yml": CLASSIC, "tests/a": ""},
        "sti",
        [TESTS],
        links={TESTS: "../x/one.yml"},
    ),
    Layout(
        "a tests directory elsewhere", {"../out/tests.yml": CLASSIC}, None, [], "no tests", links={"tests": "../out"}
    ),
    Layout(
        "tasks behind a link out",
        {TESTS: TASKS + "  - import_tasks: l.yml\n", "../out.yml": "[]"},
        "sti",
        [TESTS],
        links={"tests/l.yml": "../../out.yml"},
        problem="l.yml leads out",
    ),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.says)
def test_tests_are_found_by_reading_the_checkout(layout: Layout, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name, text in layout.files.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    for name, target in layout.links.items():
        (checkout / name).symlink_to(target)
    found = discover(checkout, layout.tag, layout.namespace)
    problems = [suite.problem for suite in found.suites if suite.problem]
    assert (found.kind, [suite.path for suite in found.suites]) == (layout.kind, layout.suites), found
    assert layout.reason in found.reason
    assert bool(found.reason) or bool(found.suites)
    assert bool(problems) is bool(layout.problem), problems
    assert layout.problem in "".join(problems)


def test_both_kinds_are_reported_and_so_are_suites_of_another_tag(tmp_path: Path) -> None:
    for name, text in {".fmf/version": "1\n", TESTS: CLASSIC, "tests/tests2.yml": ATOMIC}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = discover(tmp_path)
    assert found.kinds == ("tmt", "sti")
    assert [(suite.path, suite.tags) for suite in found.unselected] == [("tests/tests2.yml", ("atomic", "container"))]


def test_a_checkout_that_is_read_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / TESTS).write_text(CLASSIC)
    discover(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["tests", "tests.yml"]
