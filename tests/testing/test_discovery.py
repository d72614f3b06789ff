"""Which tests a checkout brings, layout by layout; each comes from a package or from an attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError
from distgate.testing.discovery import discover

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

#: One mapping of many keys, merged many times.
WIDE_MERGES = f"- &a {{{', '.join(f'k{number}: 1' for number in range(1000))}}}\n"
MERGES = "too many merged keys"
DEEP_MERGES = "- &a0 {x0: 1}\n" + "".join(f"- &a{n} {{<<: *a{n - 1}, x{n}: 1}}\n" for n in range(1, 1000))

FMF = {".fmf/version": "1\n"}
PLAN = "execute: {how: tmt}\n"
OFF = "adjust: {enabled: false}\n"
VALUE_BOMB = "x0: &a0 [x]\n" + "".join(f"x{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
#: Each node doubles what it has of the one above it, and the data stay those of one text.
GROWTH = (
    "text: aaaaaaaaaaaaaaaa\n"
    + "/a" * 60
    + ": {}\n"
    + "".join(f"{'/a' * depth}: {{text~: ['/(.+)/\\1\\1/']}}\n" for depth in range(1, 60))
)
BACKTRACKING = f"text: {'a' * 60}!\n/a: {{text-: '(a+)+$'}}\n"
ADJUST = "adjust: {when: arch == x86_64, enabled: true}\n"
NODE_BOMB = (
    "x0: &a0 {summary: x}\n"
    + "".join(f"x{n}: &a{n} {{{', '.join(f'/{one}: *a{n - 1}' for one in range(9))}}}\n" for n in range(1, 9))
    + "/x: *a8\n"
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
    unselected: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)


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
    Layout("a tree of tmt without anything", {".fmf/version": "1\n"}, "tmt", [], "neither a plan nor a test"),
    Layout("a plan", {**FMF, "plans/all.fmf": PLAN}, "tmt", ["/plans/all"]),
    Layout("a plan at the root", {**FMF, "ci.fmf": PLAN}, "tmt", ["/ci"]),
    Layout("a plan in main.fmf", {**FMF, "plans/main.fmf": PLAN}, "tmt", ["/plans"]),
    Layout("the whole tree is a plan", {**FMF, "main.fmf": PLAN}, "tmt", ["/"]),
    Layout(
        "plans by keys", {**FMF, "ci.fmf": "/a:\n  execute: {}\n/b/c:\n  execute: {}\n"}, "tmt", ["/ci/a", "/ci/b/c"]
    ),
    Layout("plans that inherit", {**FMF, "ci.fmf": PLAN + "/a:\n/b: {summary: b}\n"}, "tmt", ["/ci/a", "/ci/b"]),
    Layout(
        "plans that inherit from a directory",
        {**FMF, "plans/main.fmf": PLAN, "plans/a.fmf": "summary: a\n", "plans/b/c.fmf": ""},
        "tmt",
        ["/plans/a", "/plans/b/c"],
    ),
    Layout("a key with an operator", {**FMF, "main.fmf": PLAN, "ci.fmf": "execute+: {x: y}\n"}, "tmt", ["/ci"]),
    Layout(
        "a node that inherits nothing",
        {**FMF, "ci.fmf": PLAN + "/a: {summary: a}\n/b: {/: {inherit: false}}\n"},
        "tmt",
        ["/ci/a"],
    ),
    Layout("a branch that counts", {**FMF, "ci.fmf": PLAN + "/:\n  select: true\n/a: {}\n"}, "tmt", ["/ci", "/ci/a"]),
    Layout(
        "a disabled plan",
        {**FMF, "ci.fmf": PLAN + "/a: {enabled: false}\n/b: {}\n"},
        "tmt",
        ["/ci/b"],
        unselected=["/ci/a"],
    ),
    Layout(
        "disabled plans alone",
        {**FMF, "ci.fmf": PLAN + "enabled: false\n"},
        "tmt",
        [],
        "1 plan is there, none is enabled",
        unselected=["/ci"],
    ),
    Layout("a plan that adjust may enable", {**FMF, "ci.fmf": PLAN + "enabled: false\n" + ADJUST}, "tmt", ["/ci"]),
    Layout("a plan of another repository", {**FMF, "ci.fmf": "plan: {import: {url: x}}\n"}, "tmt", ["/ci"]),
    Layout(
        "tests without a plan", {**FMF, "tests/main.fmf": "test: ls\n"}, "tmt", [], "1 test is there, but no plan"
    ),
    Layout("hidden files", {**FMF, ".ci.fmf": PLAN, ".x/ci.fmf": PLAN}, "tmt", [], "neither a plan"),
    Layout("a tree in the tree", {**FMF, "sub/.fmf/version": "1\n", "sub/ci.fmf": PLAN}, "tmt", [], "neither a plan"),
    Layout("another suffix of fmf", {**FMF, "ci.yaml": PLAN}, "tmt", [], "neither a plan"),
    Layout("tmt and a suite", {**FMF, "ci.fmf": PLAN, TESTS: CLASSIC}, "tmt", ["/ci"], other=[TESTS]),
    Layout(
        "tmt as data of a suite", {**FMF, "t.fmf": "test: ls\n", TESTS: CLASSIC}, "tmt", [], "no plan", other=[TESTS]
    ),
    Layout("tmt and another suite", {**FMF, "ci.fmf": PLAN, TESTS: ATOMIC}, "tmt", ["/ci"]),
    Layout("tmt in the tests namespace", {**FMF, "ci.fmf": PLAN}, "tmt", ["/ci"], namespace="tests"),
    Layout(
        "a broken file hides no plan",
        {**FMF, "a.fmf": "a: [\n", "ci.fmf": PLAN},
        "tmt",
        ["a.fmf", "/ci"],
        problem="a.fmf line 2 column 1",
    ),
    Layout("a file of fmf with a tab", {**FMF, "a.fmf": "a:\n\tb: c\n"}, "tmt", ["a.fmf"], problem="line 2 column 1"),
    Layout("a list", {**FMF, "a.fmf": "- a\n"}, "tmt", ["a.fmf"], problem="a.fmf is not a mapping"),
    Layout(
        "a plan behind a link out",
        {**FMF, "../out.fmf": PLAN},
        "tmt",
        ["ci.fmf"],
        links={"ci.fmf": "../out.fmf"},
        problem="ci.fmf is a link that leads out",
    ),
    Layout(
        "a directory behind a link out", {**FMF, "../out/ci.fmf": PLAN}, "tmt", [], "neither", links={"d": "../out"}
    ),
    Layout("directories in a circle", {**FMF, "a/ci.fmf": PLAN}, "tmt", ["/a/b/ci", "/a/ci"], links={"a/b": "../a"}),
    Layout("a plan that adjust disables everywhere", {**FMF, "ci.fmf": PLAN + OFF}, "tmt", [], unselected=["/ci"]),
    Layout(
        "a key that is a number", {**FMF, "ci.fmf": "1: x\n"}, "tmt", [".fmf"], problem="fmf cannot read the tree: "
    ),
    Layout(
        "a key that is there twice", {**FMF, "ci.fmf": PLAN * 2}, "tmt", [".fmf"], problem="Failed to parse 'ci.fmf'"
    ),
    Layout(
        "data that cannot be merged", {**FMF, "ci.fmf": "a: {}\n/b: {a+: 1}\n"}, "tmt", [".fmf"], problem="MergeError"
    ),
    Layout(
        "a rule that is none",
        {**FMF, "ci.fmf": PLAN + "adjust: {when: '= ='}\n"},
        "tmt",
        [".fmf"],
        problem="InvalidRule",
    ),
    Layout("another version of fmf", {".fmf/version": "one\n"}, "tmt", [".fmf"], problem="Invalid version format"),
    Layout("a version that is a directory", {".fmf/version/x": ""}, "tmt", [".fmf"], problem="Unable to detect"),
    Layout(
        "a configuration that is none",
        {**FMF, ".fmf/config": "explore: [\n", "ci.fmf": PLAN},
        "tmt",
        [".fmf/config", "/ci"],
        problem=".fmf/config line 2 column 1",
    ),
    Layout(
        "a configuration elsewhere",
        {**FMF, "../c": "explore: {include: [.x]}\n", ".x/ci.fmf": PLAN},
        "tmt",
        [".fmf/config"],
        links={".fmf/config": "../../c"},
        problem="a link that leads out",
    ),
    Layout("values that multiply", {**FMF, "ci.fmf": VALUE_BOMB}, "tmt", [".fmf"], problem="more than 5000 nodes"),
    Layout("directories without end", {**FMF, "d/" * 60 + "ci.fmf": PLAN}, "tmt", [".fmf"], problem="too deep"),
    Layout("deep ones without metadata", {**FMF, "d/" * 60 + "x": "", "ci.fmf": PLAN}, "tmt", ["/ci"]),
    Layout("a list in itself", {**FMF, "ci.fmf": "a: &a [*a]\n"}, "tmt", [".fmf"], problem="too deep"),
    Layout("lists that grow by merging", {**FMF, "ci.fmf": GROWTH}, "tmt", [".fmf"], problem="too much memory"),
    Layout("a pattern without end", {**FMF, "ci.fmf": BACKTRACKING}, "tmt", [".fmf"], problem="takes more than 20 s"),
    Layout(
        "a version elsewhere",
        {"../v": "1\n", "ci.fmf": PLAN},
        None,
        [],
        "no tests",
        links={".fmf/version": "../../v"},
    ),
    Layout("nodes that multiply", {**FMF, "ci.fmf": NODE_BOMB}, "tmt", [".fmf"], problem="more than 5000 nodes"),
    Layout("nodes without end", {**FMF, "ci.fmf": "/a" * 400 + ":\n"}, "tmt", [".fmf"], problem="too deep"),
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
    Layout("a truth that is none", {TESTS: "- !!bool perhaps\n"}, "sti", [TESTS], problem="is no YAML"),
    Layout("a time that is none", {TESTS: "- !!timestamp soon\n"}, "sti", [TESTS], problem="is no YAML"),
    Layout("a number that is none", {TESTS: '- !!int ""\n'}, "sti", [TESTS], problem="is no YAML"),
    Layout("a long number", {TESTS: f"- tags: 0x{'F' * 5000}\n"}, "sti", [TESTS], problem="a number is too long"),
    Layout("one in base 60", {TESTS: "- tags: 1" + ":1" * 200_000}, "sti", [TESTS], problem="a number is too long"),
    Layout(
        "files that take too long together",
        {**FMF, **{f"{name}.fmf": "#" * (1 << 20) for name in "abcde"}},
        "tmt",
        ["e.fmf"],
        problem="is not read: with the files before it",
    ),
    Layout("brackets without end", {TESTS: "[" * 5000}, "sti", [TESTS], problem="tests.yml"),
    Layout("a file without end", {TESTS: "#" * (2 << 20)}, "sti", [TESTS], problem="is longer than"),
    Layout(
        "aliases that multiply", {TESTS: "- hosts: all\n  tasks:\n" + BOMB.replace("- &", "  - &")}, "sti", [], "x"
    ),
    Layout("tags that multiply", {TESTS: TAG_BOMB + "  tags: *a39\n"}, "sti", [], "tags: none"),
    Layout("merge keys in a play", {TESTS: "- &a {tags: classic}\n- <<: *a\n  hosts: all\n"}, "sti", [TESTS]),
    Layout("merge keys that multiply", {TESTS: MERGE_BOMB + CLASSIC}, "sti", [TESTS]),
    Layout("one that is merged too often", {TESTS: WIDE_MERGES + "- <<: *a\n" * 200}, "sti", [TESTS], problem=MERGES),
    Layout("in lists", {TESTS: WIDE_MERGES + "- <<: [*a]\n" * 200}, "sti", [TESTS], problem=MERGES),
    Layout(
        "in one list", {TESTS: f"{WIDE_MERGES}- <<: [{', '.join(['*a'] * 200)}]\n"}, "sti", [TESTS], problem=MERGES
    ),
    Layout("in a chain", {TESTS: DEEP_MERGES}, "sti", [TESTS], problem=MERGES),
    Layout("one that merges itself", {TESTS: "- &a {<<: *a}\n"}, "sti", [TESTS], problem="is no YAML"),
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
        (checkout / name).parent.mkdir(exist_ok=True)
        (checkout / name).symlink_to(target)
    found = discover(checkout, layout.tag, layout.namespace)
    problems = [suite.problem for suite in found.suites if suite.problem]
    assert (found.kind, [suite.name for suite in found.suites]) == (layout.kind, layout.suites), found
    assert [suite.path for suite in found.other] == layout.other
    if found.kind == "tmt":
        assert [suite.name for suite in found.unselected] == layout.unselected
    assert layout.reason in found.reason
    assert bool(found.reason) or bool(found.suites)
    assert bool(problems) is bool(layout.problem), problems
    assert layout.problem in "".join(problems)


def test_both_kinds_are_reported_and_so_are_suites_of_another_tag(tmp_path: Path) -> None:
    for name, text in {**FMF, TESTS: CLASSIC, "tests/tests2.yml": ATOMIC}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = discover(tmp_path)
    assert (found.kinds, [suite.path for suite in found.to_run]) == (("tmt", "sti"), [TESTS])
    (tmp_path / ".fmf/version").unlink()
    found = discover(tmp_path)
    assert [(suite.path, suite.tags) for suite in found.unselected] == [("tests/tests2.yml", ("atomic", "container"))]


INVENTORIES = [
    ("tests/inventory", 0o644, "tests/inventory is a file"),
    ("tests/inventory", 0o755, "tests/inventory is a program"),
    ("tests/inventory/hosts", 0o644, "tests/inventory is a directory"),
]


@pytest.mark.parametrize(("name", "mode", "note"), INVENTORIES)
def test_an_inventory_of_the_package_is_noted_and_not_run(name: str, mode: int, note: str, tmp_path: Path) -> None:
    for path, text in {TESTS: CLASSIC, name: "#!/bin/sh\ntouch was-run\n"}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).write_text(text)
    (tmp_path / name).chmod(mode)
    assert [suite.note for suite in discover(tmp_path).suites] == [note]
    assert not list(tmp_path.rglob("was-run"))


def test_a_plan_says_what_only_tmt_can_decide(tmp_path: Path) -> None:
    for path, text in {**FMF, "a.fmf": PLAN + ADJUST, "b.fmf": "enabled: false\n" + PLAN + ADJUST}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    suites = discover(tmp_path).suites
    assert all(suite.adjusted for suite in suites)
    notes = [suite.note for suite in suites]
    assert [note.split(":")[0].split(",")[0] for note in notes] == ["adjust", "disabled"]


def test_a_directory_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no directory"):
        discover(tmp_path / "none")


def test_a_checkout_that_is_read_keeps_its_files(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / TESTS).write_text(CLASSIC)
    discover(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["tests", "tests.yml"]
