"""Existing hosts as the nodes of a cluster: nothing is provisioned or torn down, and each is locked.

The lock lies on the host itself, so runs of any number of workers take turns. It is held by an ssh connection of this
process and is free again when that ends, however it ends.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from distgate.conformance.cluster import ClusterNode
from distgate.conformance.playbooks import strict_host_key
from distgate.conformance.topology import Topology
from distgate.conformance.yaml_fields import Fields, read_fields
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.guests import ssh
from distgate.process import ProcessFailed, ProcessTimedOut, background
from distgate.steps import Progress

_HOST = r"[A-Za-z0-9][A-Za-z0-9.:-]*"
_HOST_KEY = r"(ssh-[a-z0-9-]+|ecdsa-[a-z0-9-]+) [A-Za-z0-9+/=]+( .*)?"
_LOCK = "/var/tmp/distgate-conformance.lock"  # noqa: S108 - a name that all users of the host agree on
#: Opened for reading: another user's file in such a directory may not be opened for writing, not even by root.
_HOLD = (
    "test -e {lock} || (umask 0; : > {lock}) 2>/dev/null; exec 9< {lock} || exit 1; "
    "flock -w {seconds} 9 || {{ echo taken; exit 1; }}; echo held; exec cat > /dev/null"
)
#: Seconds for the connection itself, beyond waiting for the lock.
_CONNECT_SECONDS = 60.0


@dataclass(frozen=True)
class Host:
    """A machine of an inventory: ``host_key`` is its sshd's public key, and empty where any key is accepted."""

    name: str
    address: str
    port: int
    user: str
    key: Path
    host_key: str
    cluster_address: str


def read_hosts(file: Path) -> tuple[Host, ...]:
    """The hosts that an inventory file lists. Raises ConfigurationError with file, line and field."""
    top = read_fields(file)
    hosts = tuple(_host(entry, file) for entry in top.each("hosts"))
    top.done()
    names = [host.name for host in hosts]
    if twice := [name for name in names if names.count(name) > 1]:
        raise top.wrong(f"name {twice[0]} twice", "hosts")
    return hosts


def _host(entry: Fields, file: Path) -> Host:
    address = entry.text("address", like=_HOST, means="a host name or an address")
    key = Path(entry.text("key", means="the path of a private key")).expanduser()
    host = Host(
        name=entry.text("name", like=_HOST, means="the name of a node of the topology"),
        address=address,
        port=entry.number("port", 22, most=65535),
        user=entry.text("user", "root", like=r"[A-Za-z_][A-Za-z0-9_-]*", means="a user's name"),
        key=key if key.is_absolute() else file.parent / key,
        host_key=entry.text("host_key", "", like=_HOST_KEY, means="a public key: its kind and its base64"),
        cluster_address=entry.text("cluster_address", address, like=_HOST, means="a host name or an address"),
    )
    if not host.key.is_file():
        raise entry.wrong(f"is {host.key}, which is not there", "key")
    return host


class HostsProvider:
    """Machines of an inventory file, chosen by the names of the topology's nodes.

    The topology's ``memory`` and ``cpus``, and the image and key of a run, do not matter here. A host that another
    run has locked is waited for.
    """

    def __init__(self, inventory: Path) -> None:
        self._inventory = inventory

    @contextmanager
    def provision(
        self, topology: Topology, image: Path, key: Path, directory: Path, timeout: float, progress: Progress
    ) -> Iterator[tuple[ClusterNode, ...]]:
        """As distgate.conformance.cluster.Provider says; ``timeout`` is for each host's lock."""
        hosts = {host.name: host for host in read_hosts(self._inventory)}
        missing = [node.name for node in topology.nodes if node.name not in hosts]
        if missing:
            raise ConfigurationError(f"{self._inventory} lists no host for the node(s) {', '.join(missing)}")
        nodes = tuple(self._node(topology, number, hosts, directory) for number in range(len(topology.nodes)))
        with ExitStack() as stack:
            # In the same order in every run: two that wait for each other's hosts would wait for ever.
            for node in sorted(nodes, key=lambda node: (node.address.host, node.address.port)):
                progress(f"{node.name}: waiting for the lock of {node.address.host}")
                stack.enter_context(_locked(node, timeout))
            yield nodes

    def _node(self, topology: Topology, number: int, hosts: dict[str, Host], parent: Path) -> ClusterNode:
        host = hosts[topology.nodes[number].name]
        directory = parent / host.name
        directory.mkdir(parents=True, exist_ok=True)
        address = ssh.SshAddress(host.port, host.key, host.address, host.user)
        node = ClusterNode(topology.nodes[number], address, host.cluster_address, directory, host.host_key)
        if not host.host_key:
            return node
        (directory / "known_hosts").write_text(f"{host.name} {host.host_key}\n")
        strict = strict_host_key(node, (directory / "known_hosts").resolve())
        return replace(node, address=replace(address, options=strict))


@contextmanager
def _locked(node: ClusterNode, timeout: float) -> Iterator[None]:
    command = _HOLD.format(lock=_LOCK, seconds=max(1, int(timeout)))
    argv = node.address.command(f"sh -c {shlex.quote(command)}")
    with ExitStack() as stack:
        try:
            stack.enter_context(background(argv, ready_line="held", timeout=timeout + _CONNECT_SECONDS))
        except (ProcessFailed, ProcessTimedOut) as error:
            timed_out = re.search(r"^taken$", error.evidence, re.MULTILINE)
            why = f"is still used by another run after {timeout:g} s" if timed_out else "could not be locked"
            raise InfrastructureError(
                f"host {node.name} at {node.address.host}:{node.address.port} {why}",
                hint="" if timed_out else "ssh, sh, flock and cat are needed there",
                evidence=error.evidence,
            ) from error
        yield
