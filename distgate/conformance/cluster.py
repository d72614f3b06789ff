"""The machines of a cluster: guests of one image with a private network between them, gone when they are left.

Another provider, for hosts that are there already, is distgate.conformance.inventory.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from distgate.conformance.switch import addresses, switched
from distgate.conformance.topology import Node, Topology
from distgate.errors import InfrastructureError
from distgate.files import tail_of
from distgate.guests import ssh
from distgate.guests.accelerator import Accelerator, accelerator
from distgate.guests.base import CommandResult
from distgate.guests.domain_xml import Wire
from distgate.guests.host import LibvirtGuest, LibvirtGuests
from distgate.guests.libvirt_connection import embedded_libvirt
from distgate.steps import Progress
from distgate.waiting import Deadline

#: Seconds (under KVM) for giving a node its name and address, and for trying its network.
_JOIN_SECONDS = 60.0
_JOURNAL_LINES = 2000
_JOURNAL_SECONDS = 120.0
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class ClusterNode:
    """A machine that takes part: ``address`` is how we reach it, ``cluster_address`` how the others do.

    ``directory`` has its logs. ``host_key`` is the public key that its sshd must show; empty for throw-away guests.
    """

    node: Node
    address: ssh.SshAddress
    cluster_address: str
    directory: Path
    host_key: str = ""
    boot_seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def console(self) -> Path:
        """The log of a guest's serial console; a host of an inventory has none."""
        return self.directory / "console.log"

    @property
    def logs(self) -> tuple[Path, ...]:
        """The node's logs."""
        return tuple(sorted(path for path in self.directory.iterdir() if path.suffix in (".log", ".txt")))

    def run(self, command: str, timeout: float) -> CommandResult:
        """Run a shell command; see distgate.guests.ssh.run."""
        return ssh.run(self.address, command, timeout)

    def answers(self, timeout: float) -> bool:
        """Whether it still runs a command within ``timeout`` seconds."""
        try:
            return self.run("true", timeout).returncode == 0
        except InfrastructureError:
            return False

    def keep_journal(self) -> None:
        """Write the end of its journal to ``journal.txt`` in its directory, if it can still be reached."""
        with contextlib.suppress(InfrastructureError):
            journal = self.run(f"journalctl -b --no-pager -n {_JOURNAL_LINES} 2>&1", _JOURNAL_SECONDS)
            (self.directory / "journal.txt").write_text(journal.stdout)


class Provider(Protocol):
    """Where the machines of a cluster come from."""

    def provision(
        self, topology: Topology, image: Path, key: Path, directory: Path, timeout: float, progress: Progress
    ) -> AbstractContextManager[tuple[ClusterNode, ...]]:
        """The nodes in the topology's order, once each runs a command; they are released on exit.

        Guests run ``image`` and know ``key``; each leaves its logs in a directory below ``directory``. ``timeout`` is
        in seconds under KVM. Raises InfrastructureError when a node cannot be had, ConfigurationError for a wrong
        file.
        """


class LibvirtProvider:
    """Guests through libvirt, each on a throw-away overlay of the image; they reach each other and nothing else.

    ``state`` is the directory of distgate.guests.host. They end with this process, also when it is killed.
    """

    def __init__(self, state: Path, *, accelerated_by: Accelerator | None = None) -> None:
        self._state = state
        self._accelerated_by = accelerated_by

    @contextmanager
    def provision(
        self, topology: Topology, image: Path, key: Path, directory: Path, timeout: float, progress: Progress
    ) -> Iterator[tuple[ClusterNode, ...]]:
        """As Provider says; the boots go on side by side, and ``timeout`` is for all of them together."""
        count = len(topology.nodes)
        ips = addresses(topology.network, count)
        hosts = _hosts_file(topology.nodes, ips)
        scale = (self._accelerated_by or accelerator()).scale
        deadline = Deadline(timeout * scale)
        with ExitStack() as stack:
            # The directory of the embedded driver is short, private, and removed when this process is killed.
            wires = stack.enter_context(switched(embedded_libvirt(self._state).root, count))
            boots = [
                self._boot(node, wire, image, key, directory / node.name, deadline)
                for node, wire in zip(topology.nodes, wires, strict=True)
            ]
            guests = enter_all(
                boots,
                stack,
                entered=lambda number: progress(f"{topology.nodes[number].name} answers"),
                give_up=lambda: deadline.reset(0),
            )
            nodes = tuple(
                _cluster_node(node, guest, address, directory / node.name)
                for node, guest, address in zip(topology.nodes, guests, ips, strict=True)
            )
            side_by_side(
                lambda joining: _join(*joining, hosts, scale),
                zip(nodes, wires, ips, strict=True),
            )
            side_by_side(lambda link: _check_link(*link, scale), zip(nodes, (*nodes[1:], nodes[0]), strict=True))
            yield nodes

    def _boot(
        self, node: Node, wire: Wire, image: Path, key: Path, workdir: Path, deadline: Deadline
    ) -> AbstractContextManager[LibvirtGuest]:
        host = LibvirtGuests(
            self._state, memory=node.memory, cpus=node.cpus, accelerated_by=self._accelerated_by, wire=wire
        )
        return host.boot(image, key, workdir, deadline)


def enter_all(
    managers: Sequence[AbstractContextManager[T]],
    stack: ExitStack,
    *,
    entered: Callable[[int], None],
    give_up: Callable[[], None],
) -> list[T]:
    """Enter ``managers`` side by side, and leave with ``stack`` those that could be entered.

    Raises the first error once all have ended or are entered; ``give_up`` is called so that the others end soon.
    """

    def enter(number: int) -> T:
        value = managers[number].__enter__()
        stack.push(managers[number])
        entered(number)
        return value

    return side_by_side(enter, range(len(managers)), give_up)


def side_by_side(work: Callable[[T], R], items: Iterable[T], give_up: Callable[[], None] = lambda: None) -> list[R]:
    """The results of ``work`` for each item, in their order; all run at the same time.

    Raises the first error after all have ended. At an error, or when this thread is interrupted, ``give_up`` is
    called once.
    """
    work_items = list(items)
    with ThreadPoolExecutor(max(1, len(work_items))) as pool:
        running: list[Future[R]] = [pool.submit(work, item) for item in work_items]
        try:
            for future in as_completed(running):
                future.result()
        except BaseException:
            give_up()
            raise
    return [future.result() for future in running]


def _cluster_node(node: Node, guest: LibvirtGuest, address: str, directory: Path) -> ClusterNode:
    ssh_address = ssh.SshAddress(guest.port, guest.key)
    return ClusterNode(
        node, ssh_address, address.partition("/")[0], directory, boot_seconds=round(guest.boot_seconds, 1)
    )


def _hosts_file(nodes: Sequence[Node], ips: Sequence[str]) -> str:
    return "".join(f"{address.partition('/')[0]} {node.name}\n" for node, address in zip(nodes, ips, strict=True))


#: NetworkManager would take an address away that it does not know of, and brings its own ones back after a reboot.
_JOIN = """\
set -e
dev=$(grep -l -i -x {mac} /sys/class/net/*/address | cut -d/ -f5)
if command -v nmcli > /dev/null && systemctl is-active --quiet NetworkManager; then
    nmcli --wait 60 connection add type ethernet con-name cluster ifname "$dev" ipv4.method manual \
ipv4.addresses {address} ipv4.never-default yes ipv6.method link-local > /dev/null
    nmcli --wait 60 connection up cluster > /dev/null
else
    ip address add {address} dev "$dev"
    ip link set "$dev" up
fi
echo {name} > /etc/hostname
echo {name} > /proc/sys/kernel/hostname
printf %s {hosts} >> /etc/hosts
"""


def _join(node: ClusterNode, wire: Wire, address: str, hosts: str, scale: float) -> None:
    """Give a guest its name, its address, and the names of the others."""
    command = _JOIN.format(mac=wire.mac, address=address, name=node.name, hosts=shlex.quote(hosts))
    output = node.run(command, _JOIN_SECONDS * scale)
    if output.returncode:
        raise InfrastructureError(
            f"node {node.name} could not be given its address {address}", evidence=output.stdout + output.stderr
        )


def _check_link(node: ClusterNode, other: ClusterNode, scale: float) -> None:
    """Raises InfrastructureError when ``node`` does not reach ``other``, before an installation fails by it."""
    seconds = int(_JOIN_SECONDS * scale / 2)
    output = node.run(f"timeout {seconds} bash -c ': < /dev/tcp/{other.cluster_address}/22'", _JOIN_SECONDS * scale)
    if output.returncode:
        raise InfrastructureError(
            f"node {node.name} does not reach {other.name} at {other.cluster_address}",
            hint="does the image have a firewall that refuses ssh?",
            evidence=output.stderr + tail_of(other.console),
        )
