"""A profile's topology is read strictly: whatever is wrong in it is named by file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.conformance.topology import PROFILES, profile_directory, read_topology
from distgate.errors import ConfigurationError

GOOD = """\
name: pair
nodes:
  - {name: one, groups: [servers, all_of_us], memory: 1024, cpus: 2, variables: {colour: red}}
  - {name: two, groups: [all_of_us]}
playbooks: {install: install.yml, conformance: suite/conformance.yaml}
variables: {level: 3, release: v1}
requires: [checksum]
least: 10
"""


def profile(place: Path, text: str) -> Path:
    (place / "suite").mkdir(parents=True)
    (place / "topology.yaml").write_text(text)
    for name in ("install.yml", "suite/conformance.yaml"):
        (place / name).write_text("[]")
    return place


def test_nodes_groups_playbooks_and_variables_are_read(tmp_path: Path) -> None:
    read = read_topology(profile(tmp_path, GOOD))
    assert (read.name, read.directory, read.least, read.requires) == ("pair", tmp_path.resolve(), 10, ("checksum",))
    one, two = read.nodes
    assert (one.name, one.memory, one.cpus, one.variables) == ("one", 1024, 2, {"colour": "red"})
    assert (two.name, two.memory, two.cpus, two.variables) == ("two", 2048, 1, {})
    assert read.groups() == {"servers": ("one",), "all_of_us": ("one", "two")}
    assert (read.install, read.conformance) == ("install.yml", "suite/conformance.yaml")


def test_the_sites_variables_win_and_the_required_ones_have_to_be_given(tmp_path: Path) -> None:
    read = read_topology(profile(tmp_path, GOOD))
    assert read.all_variables({"checksum": "abc", "level": 4}) == {"level": 4, "release": "v1", "checksum": "abc"}
    for given in ({}, {"checksum": ""}, {"checksum": None}):
        with pytest.raises(ConfigurationError, match=r"profile pair needs variables .*: checksum"):
            read.all_variables(given)


NODES = "nodes:\n  - {name: one}\n"
PLAYBOOKS = "playbooks: {install: install.yml, conformance: suite/conformance.yaml}\n"
REFUSED = [
    ("", "is empty"),
    ("- a list\n", "line 1: the file must be a mapping"),
    ("nodes: [unclosed\n", "line 2: "),
    (PLAYBOOKS, "nodes is missing"),
    (NODES, "playbooks is missing"),
    (NODES + PLAYBOOKS + "nods: []\n", r"line 4: nods is not known here; known are least, name, .*nodes"),
    (NODES + PLAYBOOKS + NODES, "line 4: nodes is there twice"),
    ("nodes: []\n" + PLAYBOOKS, "line 1: nodes must not be empty"),
    ("nodes: {}\n" + PLAYBOOKS, "line 1: nodes must be a list"),
    ("nodes: [one]\n" + PLAYBOOKS, r"line 1: nodes\[0\] must be a mapping"),
    ("nodes:\n  - {memory: 512}\n" + PLAYBOOKS, r"line 2: nodes\[0\].name is missing"),
    ("nodes:\n  - {name: Upper}\n" + PLAYBOOKS, r"line 2: nodes\[0\].name must be a host name"),
    ("nodes:\n  - {name: localhost}\n" + PLAYBOOKS, r"line 2: nodes\[0\].name localhost is taken"),
    (NODES + "  - {name: one}\n" + PLAYBOOKS, r"line 3: nodes\[1\].name one is taken"),
    ("nodes:\n  - {name: one, memory: 2G}\n" + PLAYBOOKS, r"nodes\[0\].memory must be a whole number from 64 to"),
    ("nodes:\n  - {name: one, memory: 8}\n" + PLAYBOOKS, r"nodes\[0\].memory must be a whole number from 64 to"),
    ("nodes:\n  - {name: one, cpus: 0}\n" + PLAYBOOKS, r"nodes\[0\].cpus must be a whole number from 1 to 256"),
    ("nodes:\n  - {name: one, cores: 2}\n" + PLAYBOOKS, r"nodes\[0\].cores is not known here"),
    ("nodes:\n  - {name: one, groups: masters}\n" + PLAYBOOKS, r"nodes\[0\].groups must be a list"),
    ("nodes:\n  - {name: one, groups: [a b]}\n" + PLAYBOOKS, r"nodes\[0\].groups must be a list of names of groups"),
    ("nodes:\n  - {name: one, groups: [a, a]}\n" + PLAYBOOKS, r"nodes\[0\].groups names a twice"),
    ("nodes:\n  - {name: one, groups: [all]}\n" + PLAYBOOKS, r"nodes\[0\].groups may not be all"),
    ("nodes:\n  - {name: one, groups: [one]}\n" + PLAYBOOKS, r"nodes\[0\].groups may not be one"),
    ("nodes:\n  - {name: one, variables: {ansible_host: x}}\n" + PLAYBOOKS, "may not hold ansible_host"),
    ("nodes:\n" + "".join(f"  - {{name: n{n}}}\n" for n in range(40)) + PLAYBOOKS, "nodes are 40, more than 32"),
    (NODES + "playbooks: {install: install.yml}\n", "line 3: playbooks.conformance is missing"),
    (NODES + "playbooks: {install: ../x.yml, conformance: install.yml}\n", "playbooks.install must be the path of"),
    (NODES + "playbooks: {install: suite/../../x.yml, conformance: install.yml}\n", "is not a file of the profile"),
    (
        NODES + "playbooks: {install: other.yml, conformance: install.yml}\n",
        "playbooks.install is other.yml, which is",
    ),
    (NODES + "playbooks: {install: run.sh, conformance: install.yml}\n", "playbooks.install must be the path of"),
    (NODES + PLAYBOOKS + "variables: [a]\n", "line 4: variables must be a mapping of names"),
    (NODES + PLAYBOOKS + "variables: {a: 2026-99-99}\n", "line 4: variables holds a value that is none"),
    (
        NODES + PLAYBOOKS + "variables: {a: !!python/name:os.system x}\n",
        "line 4: variables holds a value that is none",
    ),
    (NODES + PLAYBOOKS + "requires: [a-b]\n", "line 4: requires must be a list of names of variables"),
    (NODES + PLAYBOOKS + "network: somewhere\n", "line 4: network is no IPv4 network"),
    (NODES + PLAYBOOKS + "network: 192.168.3.0/30\n", "line 4: network 192.168.3.0/30 is too small"),
    (NODES + PLAYBOOKS + "network: 10.0.0.0/8\n", "line 4: network 10.0.0.0/8 overlaps 10.0.2.0/24"),
    (NODES + PLAYBOOKS + "least: 0\n", "line 4: least must be a whole number from 1"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_is_wrong_is_refused_in_words_that_name_the_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words) as refused:
        read_topology(profile(tmp_path, text))
    assert "topology.yaml" in refused.value.message


def test_a_file_that_is_far_too_long_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="longer than"):
        read_topology(profile(tmp_path, "#" * (2 << 20)))


def test_a_profile_is_one_that_distgate_brings_or_a_directory(tmp_path: Path) -> None:
    assert profile_directory("k3s") == (PROFILES / "k3s").resolve()
    assert profile_directory(profile(tmp_path / "own", GOOD)) == (tmp_path / "own").resolve()
    with pytest.raises(ConfigurationError, match="no conformance profile nothing") as refused:
        profile_directory("nothing")
    assert "k3s, openshift-ansible" in refused.value.hint
