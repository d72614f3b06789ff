"""A conformance run as a site configures it: from a few plain fields to something that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distgate.drivers.base import Progress
from distgate.drivers.cluster import LibvirtProvider, Provider
from distgate.drivers.conformance import Conformance, Deadlines
from distgate.drivers.dist_git import checkout_of_site
from distgate.drivers.hosts_inventory import HostsProvider
from distgate.errors import ConfigurationError
from distgate.topology import read_topology


@dataclass(frozen=True)
class ConformanceSetup:
    """What a site says about its conformance runs.

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

    def open(self, guests: Path, room: Path, progress: Progress = lambda _line: None) -> Conformance:
        """The run, ready to be started; ``guests`` is the state directory of guests.

        A checkout is made in ``room``, which must be empty then. Raises ConfigurationError for whatever a site has to
        set right, before a node is asked for; InfrastructureError when the repository cannot be read.
        """
        return Conformance(
            read_topology(self._profile(room)),
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

    def _profile(self, room: Path) -> str | Path:
        if not self.repository:
            return self.profile
        tree = checkout_of_site(self.repository, self.revision, room).resolve()
        directory = (tree / self.profile).resolve()
        if not directory.is_relative_to(tree):
            raise ConfigurationError(f"the conformance profile {self.profile} lies outside of its repository")
        return directory
