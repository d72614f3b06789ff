"""The profiles that distgate brings, and the lab's: ansible takes their playbooks, and each keeps to a few rules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import lab
from distgate.conformance.topology import PROFILES, read_topology
from distgate.process import run

MINIATURE = Path(next(iter(lab.__path__))) / "cluster"
SHIPPED = sorted(path.parent for path in PROFILES.glob("*/topology.yaml"))
KEYWORDS = {
    *("name", "register", "loop", "with_items", "when", "become", "no_log", "vars", "environment"),
    *("changed_when", "failed_when", "until", "retries", "delay", "async", "poll"),
}
#: What openshift-ansible of its time is run with knows no collections.
SHORT_NAMES = ("openshift-ansible",)


def tasks_of(profile: Path) -> Iterator[dict[str, Any]]:
    for path in [*profile.glob("*.yml"), *profile.glob("tasks/*.yml")]:
        for entry in yaml.safe_load(path.read_text()):
            yield from entry.get("tasks", [] if "hosts" in entry or "import_playbook" in str(entry) else [entry])


@pytest.mark.parametrize("profile", [*SHIPPED, MINIATURE], ids=lambda path: str(path.name))
def test_ansible_takes_the_playbooks_of_a_profile(profile: Path, tmp_path: Path) -> None:
    topology = read_topology(profile)
    stub = tmp_path / "openshift-ansible" / "playbooks" / "byo" / "config.yml"
    stub.parent.mkdir(parents=True)
    stub.write_text("- {name: Stands for the checkout, hosts: masters, tasks: []}\n")
    inventory = tmp_path / "inventory.yml"
    groups = {name: {"hosts": dict.fromkeys(nodes)} for name, nodes in topology.groups().items()}
    inventory.write_text(yaml.safe_dump({"all": {"vars": dict(topology.variables), "children": groups}}))
    given = {"distgate_files": str(tmp_path), "openshift_ansible_playbook": "playbooks/byo/config.yml"}
    ansible = Path(sys.executable).parent / "ansible-playbook"
    for playbook in (topology.install, topology.conformance):
        extra = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
        said = run([ansible, "--syntax-check", "-i", inventory, *extra, profile / playbook], timeout=120)
        assert "Could not match" not in said.output


@pytest.mark.parametrize("profile", [*SHIPPED, MINIATURE], ids=lambda path: str(path.name))
def test_each_task_has_a_name_and_a_module_by_its_whole_name(profile: Path) -> None:
    tasks = list(tasks_of(profile))
    assert tasks
    for task in tasks:
        modules = [key for key in task if key not in KEYWORDS]
        assert task["name"][0].isupper(), task
        assert len(modules) == 1, task
        assert modules[0].startswith("ansible.builtin.") != (profile.name in SHORT_NAMES), task
        if modules[0].endswith(("command", "shell")):
            assert "changed_when" in task, f"{task['name']} tells a change each time"
        if modules[0].endswith(("copy", "file")) and task[modules[0]].get("state") != "absent":
            assert isinstance(task[modules[0]]["mode"], str), f"{task['name']} leaves the mode to chance"


@pytest.mark.parametrize("profile", SHIPPED, ids=lambda path: str(path.name))
def test_a_shipped_profile_pins_what_it_installs_and_says_what_it_needs(profile: Path) -> None:
    topology = read_topology(profile)
    assert topology.requires
    assert all(name.endswith("_sha256") for name in topology.requires)
    assert topology.least > 1
    readme = (profile / "README.md").read_text()
    install = (profile / "install.yml").read_text()
    for name in topology.requires:
        assert f"`{name}`" in readme
        assert name in install
    texts = [path.read_text() for path in profile.rglob("*.y*ml")]
    assert not any("http" in line and "://" in line for line in "\n".join(texts).splitlines() if "6443" not in line)
