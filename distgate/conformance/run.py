"""The end-to-end conformance of an image: a cluster of it is provisioned, installed, tested, and torn down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgate.builds.checkout import checkout_of_site
from distgate.conformance.cluster import ClusterNode, LibvirtProvider, Provider, side_by_side
from distgate.conformance.inventory import HostsProvider
from distgate.conformance.playbooks import ClusterPlaybooks
from distgate.conformance.topology import Topology, read_topology
from distgate.conformance.verdict import (
    ConformanceReport,
    NodeReport,
    Phase,
    counts,
    judge_conformance,
    judge_install,
    status_of,
)
from distgate.errors import ConfigurationError
from distgate.files import tail_of
from distgate.steps import Progress, Steps
from distgate.testing.verdict import SuiteRun, SuiteVerdict

#: Seconds in which a node that is still there answers, also when it is emulated and busy.
_ANSWER = 60.0
_CONSOLE = 1500  # bytes of a lost node's console that go into the verdict


@dataclass(frozen=True)
class Deadlines:
    """Seconds for each phase: ``provision`` is under KVM and for all guests' boots (or each host's lock), the others
    are for all playbooks of the phase."""

    provision: float = 300.0
    install: float = 3600.0
    conformance: float = 14400.0


class Conformance:
    """Runs the conformance of one profile on nodes of ``provider``.

    ``variables`` are the site's, ``files`` is a directory that playbooks read as ``distgate_files``, ``ansible`` one
    with another ansible-playbook than ours, ``roles_path`` lists directories with roles. Nothing of it stays when
    ``run`` ends, or this process.
    """

    def __init__(
        self,
        topology: Topology,
        provider: Provider,
        *,
        variables: Mapping[str, Any] | None = None,
        files: Path | None = None,
        ansible: Path | None = None,
        roles_path: Sequence[Path] = (),
        deadlines: Deadlines | None = None,
        progress: Progress = lambda _line: None,
    ) -> None:
        """Raises ConfigurationError for variables that the profile requires and are not given."""
        self._topology, self._provider = topology, provider
        self._variables, self._files, self._ansible = dict(variables or {}), files, ansible
        self._roles_path, self._deadlines, self._progress = roles_path, deadlines or Deadlines(), progress
        topology.all_variables(self._variables)

    def run(self, image: Path, key: Path, directory: Path) -> ConformanceReport:
        """The report on a cluster of guests of ``image``, whose root knows the private ``key``.

        Below the empty ``directory``: ``nodes/NAME`` has each node's console, and its journal unless all went
        well; ``install`` and ``conformance`` have the playbooks' output, the latter the JUnit files too. Raises
        InfrastructureError when the nodes cannot be had, or ansible cannot be run at all.
        """
        if directory.exists() and any(directory.iterdir()):
            raise ConfigurationError(f"the directory {directory} for a conformance run is not empty")
        steps = Steps(self._progress)
        with self._nodes(image, key, directory / "nodes", steps) as nodes:
            phase, verdict = self._judged(nodes, directory, steps)
            if verdict.verdict != "PASS":
                side_by_side(ClusterNode.keep_journal, nodes)
        report = self._report(phase, verdict, nodes, directory, steps)
        self._progress(report.sentence)
        return report

    @contextmanager
    def _nodes(self, image: Path, key: Path, directory: Path, steps: Steps) -> Iterator[tuple[ClusterNode, ...]]:
        directory.mkdir(parents=True)
        provider, limit = self._provider, self._deadlines.provision
        provisioned = provider.provision(self._topology, image, key, directory, limit, self._progress)
        with ExitStack() as stack:
            with steps.step(f"provision {len(self._topology.nodes)} nodes"):
                nodes = stack.enter_context(provisioned)
            yield nodes

    def _judged(self, nodes: Sequence[ClusterNode], directory: Path, steps: Steps) -> tuple[Phase, SuiteVerdict]:
        playbooks = ClusterPlaybooks(
            self._topology,
            nodes,
            self._variables,
            files=self._files,
            ansible=self._ansible,
            roles_path=self._roles_path,
        )
        name = self._topology.name
        with steps.step("install the cluster"):
            installed = playbooks.run(self._topology.install, directory / "install", self._deadlines.install)
        broken = judge_install(name, installed, _consoles(nodes, installed))
        if broken:
            return "install", broken
        with steps.step("conformance tests"):
            tested = playbooks.run(self._topology.conformance, directory / "conformance", self._deadlines.conformance)
        verdict = judge_conformance(name, tested, self._topology.least, _consoles(nodes, tested))
        return "conformance", _failed_if_lost(verdict, nodes)

    def _report(
        self, phase: Phase, verdict: SuiteVerdict, nodes: Sequence[ClusterNode], directory: Path, steps: Steps
    ) -> ConformanceReport:
        status = status_of(verdict)
        return ConformanceReport(
            status=status,
            sentence=f"{verdict.suite} on {len(nodes)} nodes: {status}, {verdict.evidence}",
            phase=phase,
            suite=verdict,
            nodes=tuple(
                NodeReport(node.name, node.node.groups, node.cluster_address, node.boot_seconds, node.logs)
                for node in nodes
            ),
            steps=steps.taken,
            directory=directory,
        )


def _failed_if_lost(verdict: SuiteVerdict, nodes: Sequence[ClusterNode]) -> SuiteVerdict:
    """ERROR in place of a PASS when a node was lost: tests may pass without it and say little about the cluster."""
    if verdict.verdict != "PASS":
        return verdict
    lost = _lost(nodes)
    if not lost:
        return verdict
    number = counts(verdict.tests)["passed"]
    evidence = (
        f"{', '.join(node.name for node in lost)} did not answer any more at the end, although {number} tests passed"
    )
    return SuiteVerdict(verdict.suite, "ERROR", "infrastructure", verdict.tests, evidence, _tails(lost))


def _consoles(nodes: Sequence[ClusterNode], run: SuiteRun) -> str:
    """The consoles' ends of the nodes that do not answer, where there is a reason to ask."""
    return _tails(_lost(nodes)) if run.unreachable or run.timed_out else ""


def _lost(nodes: Sequence[ClusterNode]) -> list[ClusterNode]:
    answering = side_by_side(lambda node: node.answers(_ANSWER), nodes)
    return [node for node, answers in zip(nodes, answering, strict=True) if not answers]


def _tails(nodes: Sequence[ClusterNode]) -> str:
    return "\n".join(f"{node.name}:\n{tail_of(node.console, _CONSOLE)}" for node in nodes)


@dataclass(frozen=True)
class ConformanceSetup:
    """A site's settings for its conformance runs.

    ``profile`` is one that distgate brings, a directory, or, with ``repository`` (http, https or file) at the commit
    ``revision``, a directory within that checkout. With ``hosts``, an inventory file, the nodes are machines that are
    there already; without, they are guests of the image. ``variables``, ``files``, ``ansible`` and ``roles_path`` are
    those of Conformance.
    """

    profile: str
    repository: str = ""
    revision: str = ""
    hosts: Path | None = None
    variables: Mapping[str, Any] = field(default_factory=dict[str, Any])
    files: Path | None = None
    ansible: Path | None = None
    roles_path: tuple[Path, ...] = ()
    deadlines: Deadlines = field(default_factory=Deadlines)

    def open(self, guests: Path, checkout: Path, progress: Progress = lambda _line: None) -> Conformance:
        """The run, ready to be started; ``guests`` is the state directory of guests.

        A repository is checked out in ``checkout``, which must be empty then. Raises ConfigurationError for wrong
        settings, before a node is provisioned; InfrastructureError when the repository cannot be read.
        """
        return Conformance(
            read_topology(self._profile(checkout)),
            self._provider(guests),
            variables=self.variables,
            files=self.files,
            ansible=self.ansible,
            roles_path=self.roles_path,
            deadlines=self.deadlines,
            progress=progress,
        )

    def _provider(self, guests: Path) -> Provider:
        return HostsProvider(self.hosts) if self.hosts else LibvirtProvider(guests)

    def _profile(self, checkout: Path) -> str | Path:
        if not self.repository:
            return self.profile
        tree = checkout_of_site(self.repository, self.revision, checkout).resolve()
        directory = (tree / self.profile).resolve()
        if not directory.is_relative_to(tree):
            raise ConfigurationError(f"the conformance profile {self.profile} lies outside of its repository")
        return directory
