"""OSTree commits without rpm-ostree: dnf installs into a directory, which becomes a tree, which ostree commits."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.ostree import root_to_tree
from distgate.ostree.base import TreeRequest
from distgate.ostree.repository import FULL, OstreeRepository, full
from distgate.ostree.root_to_tree import DATABASE, Shape
from distgate.ostree.treefile import Treefile
from distgate.process import ProcessFailed, run
from distgate.rpm.nevra import Nevra
from distgate.rpm.transaction import Outcome, RepositorySource, Script, Transaction, perform
from distgate.sandbox.bubblewrap_rpm import bwrap_for_scriptlets
from distgate.sandbox.sandbox import python_paths
from distgate.steps import Progress, Steps

_SHAPING = 600.0
_NO_MATCH = re.compile(r"(?m)^No match for argument: (.+)$")
#: What comes from a change, and from the changes before it, is preferred: to everything, and among equal versions.
_UNDER_TEST = 10
_TESTED_COST = 500

# Fedora's kernel packages leave the initramfs to kernel-install, which makes none in a directory.
_INITRAMFS = """#!/bin/sh
set -eu
for directory in /usr/lib/modules/*; do
    [ -e "$directory/vmlinuz" ] && [ ! -e "$directory/initramfs.img" ] || continue
    command -v dracut >/dev/null || continue
    dracut --quiet --no-hostonly --reproducible --add ostree --kver "${directory##*/}" "$directory/initramfs.img"
    chmod 600 "$directory/initramfs.img"
done
"""


@dataclass(frozen=True)
class DnfTreeComposer:
    """Composes what ``treefile`` says from ``repositories``; ``timeout`` is for the installation, in seconds.

    It needs root. It does not split the user database (a user that a package adds later reaches machines whose
    /etc/passwd was never changed), and runs no sysusers.
    """

    treefile: Treefile
    repositories: tuple[RepositorySource, ...]
    timeout: float = 3600.0
    name: str = "dnf"

    def commit(self, request: TreeRequest, scratch: Path, progress: Progress = lambda _line: None) -> str:
        """As TreeComposer.commit."""
        if self.treefile.beyond:
            raise ConfigurationError(
                f"treefile {self.treefile.path}: the dnf composer does not follow {', '.join(self.treefile.beyond)}",
                hint="leave it out, or compose with rpm-ostree",
            )
        root = scratch / "root"
        (root / DATABASE).mkdir(parents=True)
        steps = Steps(progress)
        with steps.step("install packages"):
            self._install(request, root, scratch, progress)
        with steps.step("shape the tree"):
            self._shape(request, root, scratch)
        with steps.step("commit"):
            build = OstreeRepository(request.build)
            return build.commit(root, request.ref, request.version, request.parent, *self._options(root))

    def _install(self, request: TreeRequest, root: Path, scratch: Path, progress: Progress) -> Outcome:
        scripts = [_script(number, body) for number, body in enumerate(self.treefile.scripts, 1)]
        if self.treefile.bootable:
            scripts.insert(0, Script("initramfs", _INITRAMFS, fatal=False))  # the tree's shape shows it
        transaction = Transaction(
            repositories=sources_for(request, self.repositories),
            requests=requests_for(self.treefile, request),
            root=root,
            excluded=self.treefile.excluded,
            weak_dependencies=self.treefile.recommends,
            scripts=tuple(scripts),
            release=self.treefile.release,
        )
        try:
            return perform(transaction, scratch, self.timeout, progress)
        except InfrastructureError as error:
            missing = sorted(set(_NO_MATCH.findall(error.evidence)).intersection(self.treefile.packages))
            if missing:
                raise ConfigurationError(
                    f"treefile {self.treefile.path}: no repository has {', '.join(missing)}",
                    hint=f"its repositories are {', '.join(source.name for source in self.repositories)}",
                    evidence=error.evidence,
                ) from None
            raise

    def _shape(self, request: TreeRequest, root: Path, scratch: Path) -> None:
        treefile = self.treefile
        facts = scratch / "shape.json"
        shape = Shape(
            bootable=treefile.bootable,
            tmp_is_dir=treefile.tmp_is_dir,
            empty_machine_id=treefile.empty_machine_id,
            units=treefile.units,
            default_target=treefile.default_target,
            removed=treefile.removed,
        )
        facts.write_text(shape.to_json())
        argv = bwrap_for_scriptlets(root, [facts, *python_paths(Path(sys.executable))])
        command: list[str | Path] = [*argv, sys.executable, "-m", root_to_tree.__name__, root, facts]
        try:
            run(command, timeout=_SHAPING, env={"PYTHONDONTWRITEBYTECODE": "1"})
        except ProcessFailed as error:
            raise self._unshapely(request, error) from None

    def _unshapely(self, request: TreeRequest, failed: ProcessFailed) -> DistgateError:
        if FULL.search(failed.evidence):
            return full(request.build, failed.evidence)
        last_line = (failed.evidence.strip().splitlines() or ["it does not say why"])[-1]
        kind: type[DistgateError] = InfrastructureError
        if failed.completed and failed.completed.returncode == root_to_tree.REFUSED:
            # The same treefile made a tree before: the change made the difference.
            kind = PackageError if request.parent and request.packages else ConfigurationError
        return kind(f"the installed packages make no OSTree: {last_line}", evidence=failed.evidence)

    def _options(self, root: Path) -> list[str]:
        options = ["--bootable"] if self.treefile.bootable else []
        policy = root / "usr/etc/selinux/config"
        if self.treefile.selinux and policy.is_file() and not policy.is_symlink():
            options.append("--selinux-policy-from-base")
        return options


def requests_for(treefile: Treefile, request: TreeRequest) -> tuple[str, ...]:
    """dnf's words for a tree: of what is under test the exact build, of everything else the newest."""
    exact = {package.name for package in request.packages}
    named = [name for name in (*treefile.packages, *request.also) if name not in exact]
    return tuple(dict.fromkeys([*named, *(exactly(package) for package in request.packages)]))


def sources_for(request: TreeRequest, repositories: Sequence[RepositorySource]) -> tuple[RepositorySource, ...]:
    """Where a tree's packages come from: the distribution, what is under test, and what passed before."""
    sources = list(repositories)
    if request.under_test:
        sources.append(RepositorySource.at("distgate-under-test", request.under_test, _UNDER_TEST))
    if request.tested:
        address = request.tested.resolve().as_uri()
        sources.append(RepositorySource("distgate-tested", address, cost=_TESTED_COST))
    return tuple(sources)


def exactly(package: Nevra) -> str:
    """The words that choose this build and no other, for dnf and for rpm-ostree."""
    return f"{package.name}-{package.epoch}:{package.version}-{package.release}.{package.arch}"


def _script(number: int, body: str) -> Script:
    shebang = body.splitlines()[0].removeprefix("#!").split() if body.startswith("#!") else ["/bin/sh"]
    interpreter = f"/usr/bin/{shebang[-1]}" if shebang[0].endswith("/env") else shebang[0]
    return Script(f"postprocess-{number}", body, interpreter)
