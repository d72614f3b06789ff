"""Hosts that are there already: what an inventory may say, and what is asked of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.conformance.cluster import ClusterNode
from distgate.conformance.inventory import HostsProvider, read_hosts
from distgate.conformance.playbooks import ClusterPlaybooks
from distgate.conformance.topology import Node, Topology
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests.ssh import SshAddress

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFaketHostKeyOfATestThatNobodyHas"
GOOD = f"""\
hosts:
  - {{name: one, address: 192.0.2.1, key: id, host_key: "{HOST_KEY}", cluster_address: 10.0.0.1}}
  - {{name: two, address: two.example.org, key: id, port: 2222, user: core}}
"""


def inventory(place: Path, text: str) -> Path:
    (place / "id").write_text("a private key")
    (place / "hosts.yaml").write_text(text)
    return place / "hosts.yaml"


def test_a_host_has_an_address_a_key_and_what_differs_from_the_usual(tmp_path: Path) -> None:
    one, two = read_hosts(inventory(tmp_path, GOOD))
    assert (one.address, one.port, one.user, one.key) == ("192.0.2.1", 22, "root", tmp_path / "id")
    assert (one.host_key, one.cluster_address) == (HOST_KEY, "10.0.0.1")
    assert (two.port, two.user, two.host_key, two.cluster_address) == (2222, "core", "", "two.example.org")


REFUSED = [
    ("hosts: []\n", "hosts must not be empty"),
    ("host: []\n", "hosts is missing"),
    ("hosts:\n  - {name: one, key: id}\n", r"line 2: hosts\[0\].address is missing"),
    ("hosts:\n  - {name: one, address: a}\n", r"line 2: hosts\[0\].key is missing"),
    ("hosts:\n  - {name: one, address: a, key: absent}\n", r"hosts\[0\].key is .*absent, which is not there"),
    ("hosts:\n  - {name: one, address: -oProxyCommand=x, key: id}\n", r"hosts\[0\].address must be a host name"),
    ("hosts:\n  - {name: one, address: a, key: id, user: -l}\n", r"hosts\[0\].user must be a user's name"),
    ("hosts:\n  - {name: one, address: a, key: id, port: 70000}\n", r"hosts\[0\].port must be a whole number"),
    ("hosts:\n  - {name: one, address: a, key: id, host_key: AAAA}\n", r"hosts\[0\].host_key must be a public key"),
    ("hosts:\n  - {name: one, address: a, key: id, pass: x}\n", r"hosts\[0\].pass is not known here"),
    ("hosts:\n" + "  - {name: one, address: a, key: id}\n" * 2, "hosts name one twice"),
]


@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_is_wrong_is_refused_in_words_that_name_the_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read_hosts(inventory(tmp_path, text))


def topology(place: Path, *names: str) -> Topology:
    return Topology("t", place, tuple(Node(name, ("all_of_us",)) for name in names), "i.yml", "c.yml")


def test_a_node_that_no_host_is_listed_for_is_named_before_anything_is_locked(tmp_path: Path) -> None:
    wanted = topology(tmp_path, "one", "three")
    provider = HostsProvider(inventory(tmp_path, GOOD))
    with (
        pytest.raises(ConfigurationError, match=r"no host for the node\(s\) three"),
        provider.provision(wanted, tmp_path, tmp_path, tmp_path / "nodes", 1, print),
    ):
        pass


def test_a_host_that_does_not_answer_is_our_sides_to_look_after(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, "hosts:\n  - {name: one, address: 127.0.0.1, port: 1, key: id}\n")
    with (
        pytest.raises(InfrastructureError, match=r"host one at 127\.0\.0\.1:1 could not be locked") as refused,
        HostsProvider(hosts).provision(topology(tmp_path, "one"), tmp_path, tmp_path, tmp_path / "n", 1, print),
    ):
        pass
    assert "refused" in refused.value.evidence.lower()


def test_a_known_host_key_is_the_only_one_that_is_accepted_inside_the_sandbox_too(tmp_path: Path) -> None:
    wanted = topology(tmp_path, "one", "two")
    nodes = [
        ClusterNode(node, SshAddress(22, tmp_path / "id", "192.0.2.1", "core"), "10.0.0.1", tmp_path, host_key=key)
        for node, key in zip(wanted.nodes, (HOST_KEY, ""), strict=True)
    ]
    made = ClusterPlaybooks(wanted, nodes, {"colour": "red"}).inventory(Path("/private"))["all"]
    one, two = made["hosts"]["one"], made["hosts"]["two"]
    assert (one["ansible_host"], one["ansible_port"], two["ansible_port"]) == ("127.0.0.1", 22001, 22002)
    assert (one["ansible_user"], one["cluster_address"], made["vars"]) == ("core", "10.0.0.1", {"colour": "red"})
    first = "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=/private/known_hosts -o HostKeyAlias=one"
    assert one["ansible_ssh_args"].startswith(first)
    assert "StrictHostKeyChecking=yes" not in two["ansible_ssh_args"]
    assert made["children"] == {"all_of_us": {"hosts": {"one": None, "two": None}}}
