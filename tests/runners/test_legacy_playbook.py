"""Old playbooks are changed where the meaning stays, and refused with the line where it would not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from distgate.runners.legacy_playbook import UnsupportedPlaybook, port_playbook

#: What a suite says, what it says afterwards, and the lines that are told.
REWRITTEN = {
    "vars as a list": (
        "- hosts: all\n  vars:\n  - a: 1\n    b: 2\n  # why\n  - c: '{{ a }}'\n  tasks: []\n",
        "- hosts: all\n  vars:\n    a: 1\n    b: 2\n  # why\n    c: '{{ a }}'\n  tasks: []\n",
        [3, 6],
    ),
    "an indented list": (
        "- hosts: all\n  vars:\n    -\n      a: 1\n    - b: [x]\n",
        None,
        [4, 5],
    ),
    "an empty list": ("- hosts: all\n  vars: []\n", "- hosts: all\n  vars: {}\n", [2]),
    "a playbook's include": ("- include: other.yml\n", "- import_playbook: other.yml\n", [1]),
    "a task's include": (
        "- hosts: all\n  tasks:\n  - include: one.yml\n",
        "- hosts: all\n  tasks:\n  - import_tasks: one.yml\n",
        [3],
    ),
    "an include that is only known later": (
        "- hosts: all\n  tasks:\n  - include: '{{ item }}'\n    with_items: [a, b]\n",
        "- hosts: all\n  tasks:\n  - include_tasks: '{{ item }}'\n    with_items: [a, b]\n",
        [3],
    ),
    "an include in a block": (
        "- hosts: all\n  tasks:\n  - block:\n    - ansible.builtin.include: one.yml\n",
        "- hosts: all\n  tasks:\n  - block:\n    - import_tasks: one.yml\n",
        [4],
    ),
    "warn alone": (
        "- hosts: all\n  tasks:\n  - command: rpm -q a\n    args:\n      warn: false\n",
        "- hosts: all\n  tasks:\n  - command: rpm -q a\n    args:\n      {}\n",
        [5],
    ),
    "warn among others": (
        "- hosts: all\n  tasks:\n  - shell: ls\n    args:\n      chdir: /\n      warn: no\n    name: x\n",
        "- hosts: all\n  tasks:\n  - shell: ls\n    args:\n      chdir: /\n      \n    name: x\n",
        [6],
    ),
    "warn before others": (
        "- hosts: all\n  tasks:\n  - shell: ls\n    args:\n      warn: no\n      chdir: /\n",
        "- hosts: all\n  tasks:\n  - shell: ls\n    args:\n      # warn\n      chdir: /\n",
        [5],
    ),
    "warn in braces": (
        "- hosts: all\n  tasks:\n  - shell: ls\n    args: {chdir: /, warn: false}\n",
        "- hosts: all\n  tasks:\n  - shell: ls\n    args: {chdir: /}\n",
        [4],
    ),
    "warn alone in braces": (
        "- hosts: all\n  tasks:\n  - shell: ls\n    args: {warn: false}\n",
        "- hosts: all\n  tasks:\n  - shell: ls\n    args: {}\n",
        [4],
    ),
    "warn in the command's line": (
        "- hosts: all\n  tasks:\n  - command: rpm -q bash warn=no\n",
        "- hosts: all\n  tasks:\n  - command: rpm -q bash \n",
        [3],
    ),
}

UNTOUCHED = {
    "a current playbook": "- hosts: all\n  vars: {a: 1}\n  tasks:\n  - import_tasks: x.yml\n  - command: gcc -warn\n",
    "warn of another module": "- hosts: all\n  tasks:\n  - debug: {msg: warn}\n    args: {warn: false}\n",
    "warn=no in quotes, which a program may want": "- hosts: all\n  tasks:\n  - shell: 'x --set warn=no'\n",
    "no YAML": "- hosts: [\n",
    "no playbook": "hosts: all\nvars: [a]\n",
}

REFUSED = {
    "vars in brackets": ("- hosts: all\n  vars: [{a: 1}]\n", "tests.yml:2: vars is a list"),
    "names alone": ("- hosts: all\n  vars:\n  - a\n", "tests.yml:3: vars is a list"),
    "include with arguments": (
        "- hosts: all\n  tasks:\n  - include: a.yml b=1\n",
        "tests.yml:3: include with arguments",
    ),
}


@pytest.fixture
def playbook(tmp_path: Path) -> Path:
    return tmp_path / "tests.yml"


@pytest.mark.parametrize("case", REWRITTEN)
def test_an_old_construct_is_rewritten_and_its_line_told(playbook: Path, case: str) -> None:
    before, after, lines = REWRITTEN[case]
    playbook.write_text(before)
    assert [rewrite.line for rewrite in port_playbook(playbook, playbook.parent)] == lines
    if after is not None:
        assert playbook.read_text() == after
    assert len(playbook.read_text().splitlines()) == len(before.splitlines())


def test_variables_of_a_list_are_those_of_the_mapping(playbook: Path) -> None:
    playbook.write_text(REWRITTEN["an indented list"][0])
    port_playbook(playbook, playbook.parent)
    assert yaml.safe_load(playbook.read_text()) == [{"hosts": "all", "vars": {"a": 1, "b": ["x"]}}]


@pytest.mark.parametrize("case", UNTOUCHED)
def test_what_is_current_or_unclear_is_left_as_it_is(playbook: Path, case: str) -> None:
    playbook.write_text(UNTOUCHED[case])
    assert port_playbook(playbook, playbook.parent) == []
    assert playbook.read_text() == UNTOUCHED[case]


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_rewritten_is_refused_with_its_line(playbook: Path, case: str) -> None:
    text, said = REFUSED[case]
    playbook.write_text(text)
    with pytest.raises(UnsupportedPlaybook, match=said):
        port_playbook(playbook, playbook.parent)


def test_files_that_a_suite_brings_in_and_its_own_roles_are_rewritten_too(playbook: Path) -> None:
    tree = playbook.parent
    playbook.write_text("- include: more.yml\n")
    (tree / "more.yml").write_text("- hosts: all\n  tasks:\n  - include: parts/one.yml\n")
    (tree / "roles/own/tasks").mkdir(parents=True)
    (tree / "roles/own/tasks/main.yml").write_text("- command: 'true'\n  args: {warn: no}\n")
    (tree / "parts").mkdir()
    (tree / "parts/one.yml").write_text("- include: two.yml\n")
    (tree / "parts/two.yml").write_text("- shell: ls warn=no\n")
    told = [str(rewrite) for rewrite in port_playbook(playbook, tree)]
    assert told == [
        "more.yml:3: include is now import_tasks",
        "parts/one.yml:1: include is now import_tasks",
        "parts/two.yml:1: the argument warn is gone",
        "roles/own/tasks/main.yml:2: the argument warn is gone",
        "tests.yml:1: include is now import_playbook",
    ]


def test_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    tree, elsewhere = tmp_path / "tree", tmp_path / "else.yml"
    tree.mkdir()
    elsewhere.write_text("- include: x.yml\n")
    (tree / "tests.yml").symlink_to(elsewhere)
    assert port_playbook(tree / "tests.yml", tree) == []
    assert elsewhere.read_text() == "- include: x.yml\n"
