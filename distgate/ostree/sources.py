"""Which source packages a tree is made of: dnf solves for its packages as a compose would, and installs nothing."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from distgate.changes.package_lists import PackageList, write_list
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.ostree.treefile import Treefile, release_of
from distgate.process import run
from distgate.rpm.dnf import ENVIRONMENT, EVIDENCE, option_lines, sections
from distgate.rpm.dnf_output import at_fault, complaint
from distgate.rpm.transaction import RepositorySource
from distgate.steps import Progress

_QUERY = "%{name}|%{sourcerpm}\\n"
#: A package of dnf's table: name, architecture, version, repository, size. A long name has a line of its own.
_ROW = re.compile(r"^ (\S+)\s+(\S+)\s+(\S+)\s+(\S+)\s+[\d.]+ ?[kKMG]?i?B?\s*?$", re.MULTILINE)
#: dnf 4 writes "Install  80 Packages", dnf 5 " Installing:  80 packages".
_SUM = re.compile(r"^ ?Install(?:ing:)? +(\d+) [Pp]ackages?$", re.MULTILINE)
_MISSING = re.compile(r"^No match for argument: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class TreeSources:
    """What a tree consists of: how many packages, and the names of their source packages, which are those of their
    dist-git repositories."""

    packages: int
    sources: tuple[str, ...]


def sources_of(
    treefile: Treefile,
    repositories: Sequence[RepositorySource],
    release: str = "",
    timeout: float = 1800.0,
    progress: Progress = lambda _line: None,
) -> TreeSources:
    """Solve for the packages of ``treefile`` in an empty root; ``release`` counts when the treefile names none.

    Nothing is downloaded but metadata; ``timeout`` is in seconds for each of two calls of dnf. Raises
    ConfigurationError when a package is missing or they do not go together, InfrastructureError when a repository is
    away.
    """
    with tempfile.TemporaryDirectory(prefix="distgate-tree-") as name:
        solver = _Solver(Path(name), treefile, tuple(repositories), treefile.release or release, timeout)
        progress(f"solving for {len(treefile.packages)} packages of {treefile.path}")
        planned = solver.plan()
        progress(f"{len(planned)} packages; asking for their sources")
        return TreeSources(len(planned), solver.sources(planned))


def refresh(
    directory: Path,
    branch: str,
    treefile: Treefile,
    repositories: Sequence[RepositorySource],
    progress: Progress = lambda _line: None,
) -> PackageList:
    """Write the names of the source packages of ``treefile`` into the branch's list in ``directory``.

    What people wrote into the list stays. Raises what ``sources_of`` and ``write_list`` do; the list is then as it
    was.
    """
    origins = sources_of(treefile, repositories, release_of(branch), progress=progress)
    names = ", ".join(repository.name for repository in repositories)
    origin = f"{treefile.path.name}: {origins.packages} packages of {names}, made of {len(origins.sources)} sources"
    return write_list(directory, branch, origins.sources, origin, datetime.now(UTC))


@dataclass(frozen=True)
class _Solver:
    workspace: Path
    treefile: Treefile
    repositories: tuple[RepositorySource, ...]
    release: str
    timeout: float

    def plan(self) -> tuple[str, ...]:
        """The packages that dnf would install, each as name-version-release.arch."""
        self._configure()
        if not self.treefile.packages:
            raise ConfigurationError(f"treefile {self.treefile.path} names no packages")
        output = self._dnf("--assumeno", "install", *self.treefile.packages)
        expected = sum(int(count) for count in _SUM.findall(output))
        if not expected:
            raise self._refusal(output)
        planned = tuple(f"{name}-{version}.{arch}" for name, arch, version, _ in _ROW.findall(output))
        if len(planned) != expected:
            raise InfrastructureError(
                f"dnf speaks of {expected} packages, and its table was read as {len(planned)}",
                hint="is this a dnf that words its tables differently?",
                evidence=output[-EVIDENCE:],
            )
        return planned

    def sources(self, planned: Sequence[str]) -> tuple[str, ...]:
        """The names of the source packages that these were built from."""
        output = self._dnf("--cacheonly", "--quiet", "repoquery", "--qf", _QUERY, *planned)
        rows = [line.split("|") for line in output.splitlines() if line.count("|") == 1]
        unnamed = sorted({name for name, source in rows if not source.endswith(".src.rpm")})
        if unnamed or not rows:
            raise InfrastructureError(
                f"the metadata names no source package of {', '.join(unnamed[:10]) or 'these packages'}",
                evidence=output[-EVIDENCE:],
            )
        return tuple(sorted({source.rsplit("-", 2)[0] for _, source in rows}))

    def _configure(self) -> None:
        (self.workspace / "root").mkdir()
        options = {
            "gpgcheck": 0,
            "plugins": 0,
            "best": 1,
            "color": "never",
            "install_weak_deps": int(self.treefile.recommends),
            "excludepkgs": " ".join(self.treefile.excluded),
            "reposdir": self.workspace / "none",
            "varsdir": self.workspace / "none",
            "cachedir": "/cache",
            "logdir": "/log",
            "persistdir": "/state",
        }
        text = "[main]\n" + option_lines(options) + "".join(sections(self.repositories))
        (self.workspace / "dnf.conf").write_text(text)

    def _dnf(self, *arguments: str) -> str:
        # dnf wants root for a question, too; it is one in a namespace of its own.
        user = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        argv: list[str | Path] = [*user, "dnf", "-c", self.workspace / "dnf.conf"]
        argv += [f"--installroot={self.workspace / 'root'}", f"--releasever={self.release or '/'}", *arguments]
        environment = ENVIRONMENT | {"HOME": str(self.workspace)}
        return run(argv, timeout=self.timeout, env=environment, allowed=range(256)).output

    def _refusal(self, output: str) -> ConfigurationError | InfrastructureError:
        about, evidence = f"treefile {self.treefile.path}", output[-EVIDENCE:]
        missing = ", ".join(_MISSING.findall(output))
        if missing:
            return ConfigurationError(f"{about}: no repository has {missing}", evidence=evidence)
        if at_fault(output) == "package":
            return ConfigurationError(
                f"{about}: its packages do not go together: {complaint(output)}", evidence=evidence
            )
        return InfrastructureError(f"{about} cannot be solved for: {complaint(output)}", evidence=evidence)
