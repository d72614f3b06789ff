"""Conformance on two real guests: one boot, from the image to the verdict, with what goes wrong on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

import lab
from distgate.conformance.cluster import ClusterNode, LibvirtProvider
from distgate.conformance.inventory import HostsProvider
from distgate.conformance.run import Conformance, Deadlines
from distgate.conformance.topology import Topology, read_topology
from distgate.conformance.verdict import ConformanceReport
from distgate.errors import InfrastructureError
from distgate.guests.accelerator import accelerator
from distgate.images.base import BaseImage
from distgate.steps import Progress

pytestmark = pytest.mark.guest
MINIATURE = read_topology(Path(next(iter(lab.__path__))) / "cluster")
SECONDS = 60.0 * accelerator().scale
DEADLINES = Deadlines(provision=120, install=SECONDS, conformance=SECONDS)


class KeptOpen:
    """The real provider, whose guests outlive the run that asked for them first: several tests share one boot."""

    def __init__(self, provider: LibvirtProvider, leaving: ExitStack) -> None:
        self.provider, self.leaving = provider, leaving
        self.nodes: tuple[ClusterNode, ...] = ()

    def provision(
        self, topology: Topology, image: Path, key: Path, room: Path, timeout: float, progress: Progress
    ) -> AbstractContextManager[tuple[ClusterNode, ...]]:
        return self._opened(self.provider.provision(topology, image, key, room, timeout, progress))

    @contextmanager
    def _opened(
        self, provisioned: AbstractContextManager[tuple[ClusterNode, ...]]
    ) -> Iterator[tuple[ClusterNode, ...]]:
        self.nodes = self.leaving.enter_context(provisioned)
        yield self.nodes


class World:
    """The first run, on guests of its own, and an inventory that names these guests as hosts for all others."""

    def __init__(self, report: ConformanceReport, nodes: tuple[ClusterNode, ...], place: Path) -> None:
        self.report, self.nodes, self.place = report, nodes, place
        keys = {node.name: node.run("cat /etc/ssh/ssh_host_*_key.pub", SECONDS).stdout for node in nodes}
        self.host_keys = {name: said.splitlines()[0] for name, said in keys.items()}
        self.inventory = place / "hosts.yaml"
        self.write_inventory(self.host_keys)

    def write_inventory(self, keys: dict[str, str]) -> None:
        lines = [
            f"  - {{name: {node.name}, address: 127.0.0.1, port: {node.address.port}, key: {node.address.key},"
            f' host_key: "{keys[node.name]}", cluster_address: {node.cluster_address}}}'
            for node in self.nodes
        ]
        self.inventory.write_text("\n".join(["hosts:", *lines, ""]))

    def run(self, name: str, progress: Progress = print, **variables: bool) -> ConformanceReport:
        again = Conformance(
            MINIATURE, HostsProvider(self.inventory), variables=variables, deadlines=DEADLINES, progress=progress
        )
        return again.run(self.place, self.place, self.place / name)


@pytest.fixture(scope="module")
def world(base_image: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("conformance")
    with ExitStack() as leaving:
        provider = KeptOpen(LibvirtProvider(place / "state"), leaving)
        run = Conformance(MINIATURE, provider, deadlines=DEADLINES, progress=print)
        report = run.run(base_image.path, base_image.ssh_key, place / "first")
        yield World(report, provider.nodes, place)


def test_a_cluster_is_installed_on_two_guests_and_all_its_tests_that_run_pass(world: World) -> None:
    report = world.report
    assert (report.status, report.phase, report.blame) == ("SUCCESS", "conformance", None), report.sentence
    assert report.counts == {"passed": 7, "failed": 0, "skipped": 2}
    assert report.sentence == "miniature on 2 nodes: SUCCESS, 7 passed, 0 failed, 2 skipped"
    assert [step.name for step in report.steps] == [
        "provision 2 nodes",
        "install the cluster",
        "conformance tests",
    ]
    assert [(node.name, node.groups, node.address) for node in report.nodes] == [
        ("server", ("servers",), "192.168.211.10"),
        ("worker", ("agents",), "192.168.211.11"),
    ]
    assert all(node.boot_seconds > 0 and node.logs for node in report.nodes)
    kept = report.directory / "conformance"
    assert {path.name for path in kept.iterdir()} == {"ansible.log", "ansible.txt", "junit_miniature.xml"}


def test_guests_know_each_other_by_name_and_reach_each_other_but_not_this_host(world: World) -> None:
    server, worker = world.nodes
    ask = "timeout 20 bash -c ': < /dev/tcp/{}/{}' && echo reached"
    assert "reached" in server.run(ask.format("worker", 22), SECONDS).stdout
    assert "reached" in worker.run(ask.format("server", 8080), SECONDS).stdout
    assert worker.run("cat /proc/sys/kernel/hostname", SECONDS).stdout == "worker\n"
    for host in ("10.0.2.2", "192.168.211.1"):  # this host, as user-mode networking shows it, or as a bridge would
        assert "reached" not in worker.run(ask.format(host, server.address.port), SECONDS).stdout


def test_hosts_that_are_there_already_are_locked_by_whoever_works_on_them(world: World) -> None:
    provider = HostsProvider(world.inventory)
    with (
        provider.provision(MINIATURE, world.place, world.place, world.place / "a", SECONDS, print),
        pytest.raises(InfrastructureError, match=r"host \w+ at 127.0.0.1:\d+ is still used by another run"),
        provider.provision(MINIATURE, world.place, world.place, world.place / "b", 1, print),
    ):
        pass
    with provider.provision(MINIATURE, world.place, world.place, world.place / "c", SECONDS, print):
        pass


def test_a_host_with_another_key_than_the_inventory_has_is_not_talked_to(world: World) -> None:
    world.write_inventory({name: f"{key.split()[0]} {'A' * 68}" for name, key in world.host_keys.items()})
    try:
        with pytest.raises(InfrastructureError, match="could not be locked") as refused:
            world.run("wrong-key")
        assert "verification failed" in refused.value.evidence
    finally:
        world.write_inventory(world.host_keys)


def test_a_test_that_fails_makes_the_run_unstable_and_is_named_and_the_journals_are_kept(world: World) -> None:
    report = world.run("unstable", break_conformance=True)
    assert (report.status, report.blame) == ("UNSTABLE", "package"), report.sentence
    assert report.counts == {"passed": 6, "failed": 1, "skipped": 2}
    assert "an unknown kind of thing is not found (volumes are refused)" in report.sentence
    journals = [path for node in report.nodes for path in node.logs if path.name == "journal.txt"]
    assert len(journals) == 2
    assert all("miniature" in path.read_text() for path in journals)


def test_a_cluster_that_cannot_be_installed_is_a_failure_that_names_node_and_step(world: World) -> None:
    report = world.run("uninstallable", break_install=True)
    assert (report.status, report.phase, report.blame) == ("FAILURE", "install", "package")
    assert "failed on worker, at task 'Install and start one" in report.sentence
    assert not report.suite.tests


def test_a_node_that_dies_in_the_middle_is_ours_to_repeat_and_named(world: World) -> None:
    worker = world.nodes[1]

    def kill_it_in_the_middle(line: str) -> None:
        if line == "install the cluster ...":
            os.kill(emulator_of(worker), signal.SIGKILL)

    report = world.run("dead", kill_it_in_the_middle)
    assert (report.status, report.blame, report.retryable) == ("FAILURE", "infrastructure", True), report.sentence
    assert "node worker could not be reached during the installation" in report.sentence
    assert report.suite.details.startswith("worker:")


def emulator_of(node: ClusterNode) -> int:
    """The process whose disk lies in this node's directory."""
    for entry in Path("/proc").glob("[0-9]*"):
        words = (entry / "cmdline").read_bytes()
        if b"qemu-system" in words and os.fsencode(node.directory.resolve()) + b"/" in words:
            return int(entry.name)
    raise AssertionError(f"{node.name} has no emulator")
