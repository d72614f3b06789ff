"""The topology of a conformance run: the nodes of a cluster, and the playbooks that install and test it.

A profile is a directory: ``topology.yaml``, its playbooks, and what these need. docs/conformance.md has its fields.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgate.conformance.yaml_fields import Fields, read_fields
from distgate.errors import ConfigurationError

#: The file of a profile that names all others.
FILE = "topology.yaml"
#: Profiles that distgate brings, by name.
PROFILES = Path(__file__).parent / "profiles"
#: Where the addresses of a cluster's private network come from, unless the profile says otherwise.
NETWORK = "192.168.211.0/24"
#: The network of every emulated guest's first card.
_GUEST_NETWORK = ipaddress.ip_network("10.0.2.0/24")
_HOST = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_GROUP = r"[A-Za-z_][A-Za-z0-9_]{0,62}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_PLAYBOOK = r"[A-Za-z0-9_][A-Za-z0-9_./-]*\.ya?ml"
_RESERVED = ("all", "ungrouped", "localhost", "_meta")
_MOST_NODES = 32
_MOST_MEMORY = 1 << 20  # MiB


@dataclass(frozen=True)
class Node:
    """One machine of a cluster: ``memory`` in MiB, ``groups`` and ``variables`` are Ansible's."""

    name: str
    groups: tuple[str, ...] = ()
    memory: int = 2048
    cpus: int = 1
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Topology:
    """A cluster as its profile describes it. ``install`` and ``conformance`` are paths within ``directory``.

    ``requires`` names variables that the site has to give; ``least`` is how many tests have to pass for a run to be
    one at all; ``network`` is where the guests' addresses come from.
    """

    name: str
    directory: Path
    nodes: tuple[Node, ...]
    install: str
    conformance: str
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    requires: tuple[str, ...] = ()
    network: str = NETWORK
    least: int = 1

    def groups(self) -> dict[str, tuple[str, ...]]:
        """The names of the nodes in each group."""
        names = dict.fromkeys(group for node in self.nodes for group in node.groups)
        return {name: tuple(node.name for node in self.nodes if name in node.groups) for name in names}

    def all_variables(self, site_variables: Mapping[str, Any]) -> dict[str, Any]:
        """The variables of every node, ``site_variables`` before the profile's own.

        Raises ConfigurationError that names each required variable that is not given, or is empty.
        """
        missing = [name for name in self.requires if site_variables.get(name) in (None, "")]
        if missing:
            raise ConfigurationError(
                f"the conformance profile {self.name} needs variables that are not given: {', '.join(missing)}",
                hint="its README says what they mean; checksums are those of the files that the site provides",
            )
        return {**self.variables, **site_variables}


def profile_directory(name: str | Path) -> Path:
    """The directory of a profile: one that distgate brings, by name, or any path."""
    shipped = PROFILES / name
    directory = shipped if "/" not in str(name) and shipped.is_dir() else Path(name)
    if not (directory / FILE).is_file():
        profiles = ", ".join(sorted(path.parent.name for path in PROFILES.glob(f"*/{FILE}")))
        raise ConfigurationError(
            f"there is no conformance profile {name}", hint=f"a directory with {FILE}, or {profiles}"
        )
    return directory.resolve()


def read_topology(profile: str | Path) -> Topology:
    """The topology of a profile. Raises ConfigurationError with file, line and field for what is wrong in it."""
    directory = profile_directory(profile)
    top = read_fields(directory / FILE)
    playbooks = top.fields("playbooks")
    topology = Topology(
        name=top.text("name", directory.name, like=_HOST, means="lower-case letters, digits and hyphens"),
        directory=directory,
        nodes=tuple(_nodes(top)),
        install=_playbook(playbooks, "install", directory),
        conformance=_playbook(playbooks, "conformance", directory),
        variables=_variables(top),
        requires=top.texts("requires", like=_VARIABLE, means="names of variables"),
        network=top.text("network", NETWORK),
        least=top.number("least", 1, most=1_000_000),
    )
    playbooks.done()
    top.done()
    _check_network(top, topology)
    return topology


def _nodes(top: Fields) -> list[Node]:
    nodes: list[Node] = []
    for entry in top.each("nodes"):
        name = entry.text("name", like=_HOST, means="a host name: lower-case letters, digits and hyphens")
        groups = entry.texts("groups", like=_GROUP, means="names of groups: letters, digits and underscores")
        if name in (node.name for node in nodes) or name == "localhost":
            raise entry.wrong(f"{name} is taken", "name")
        if reserved := [group for group in groups if group in _RESERVED or group == name]:
            raise entry.wrong(f"may not be {reserved[0]}, which means something else", "groups")
        memory = entry.number("memory", Node.memory, least=64, most=_MOST_MEMORY)
        cpus = entry.number("cpus", Node.cpus, most=256)
        nodes.append(Node(name, groups, memory, cpus, _variables(entry)))
    if len(nodes) > _MOST_NODES:
        raise top.wrong(f"are {len(nodes)}, more than {_MOST_NODES}", "nodes")
    return nodes


def _variables(entry: Fields) -> dict[str, Any]:
    variables = entry.mapping("variables")
    reserved = [name for name in variables if name.startswith("ansible_") and name != "ansible_python_interpreter"]
    if reserved:  # they say how to connect, which the provider knows
        raise entry.wrong(
            f"may not hold {reserved[0]}: how a node is reached is not the profile's to say", "variables"
        )
    return variables


def _playbook(entry: Fields, key: str, directory: Path) -> str:
    name = entry.text(key, like=_PLAYBOOK, means="the path of a playbook within the profile")
    if ".." in Path(name).parts or not (directory / name).is_file():
        raise entry.wrong(f"is {name}, which is not a file of the profile", key)
    return name


def _check_network(top: Fields, topology: Topology) -> None:
    try:
        network = ipaddress.IPv4Network(topology.network)
    except ValueError as error:
        raise top.wrong(f"is no IPv4 network: {error}", "network") from error
    if network.num_addresses < len(topology.nodes) + 16:
        raise top.wrong(f"{network} is too small for {len(topology.nodes)} nodes", "network")
    if network.overlaps(_GUEST_NETWORK):
        raise top.wrong(f"{network} overlaps {_GUEST_NETWORK}, which every guest has already", "network")
