"""OSTree commits by ``rpm-ostree compose tree``, from a treefile laid over ours."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError
from distgate.files import tail_of
from distgate.ostree.base import TreeRequest
from distgate.ostree.compose_dnf import exactly, sources_for
from distgate.ostree.repo_files import repo_text
from distgate.ostree.repository import FULL, full
from distgate.ostree.treefile import Treefile
from distgate.process import ProcessFailed, run
from distgate.rpm.transaction import RepositorySource
from distgate.steps import Progress, Steps

COMMAND = ("rpm-ostree",)
EVIDENCE = 6000
#: What rpm-ostree says when the packages are at fault.
_REFUSED = re.compile(
    r"Could not depsolve transaction|[Rr]unning (?:lua )?%\w+|Failed to execute scriptlet|[Cc]onflicts? with file"
)
_MISSING = re.compile(r"Packages not found: (.+)")


@dataclass(frozen=True)
class RpmOstreeComposer:
    """Composes ``treefile`` with ``command`` (rpm-ostree), which needs root. ``cache`` is a directory that stays:
    packages are downloaded and unpacked into it once. ``timeout`` is in seconds."""

    treefile: Treefile
    repositories: tuple[RepositorySource, ...]
    cache: Path
    timeout: float = 7200.0
    command: tuple[str, ...] = COMMAND
    name: str = "rpm-ostree"

    def commit(self, request: TreeRequest, scratch: Path, progress: Progress = lambda _line: None) -> str:
        """As TreeComposer.commit."""
        self.cache.mkdir(parents=True, exist_ok=True)
        definition = self.write_definition(request, scratch)
        answer, log = scratch / "commit", scratch / "rpm-ostree.log"
        with Steps(progress).step("rpm-ostree compose tree"):
            try:
                run(self._words(request, definition, answer), timeout=self.timeout, log_to=log)
            except ProcessFailed:
                raise self._judged(request, tail_of(log, EVIDENCE)) from None
        try:
            return answer.read_text().strip()
        except OSError:
            raise InfrastructureError(
                "rpm-ostree made no commit and said nothing", evidence=tail_of(log, EVIDENCE)
            ) from None

    def write_definition(self, request: TreeRequest, into: Path) -> Path:
        """The treefile laid over ours, with the repositories beside it; its path below ``into``."""
        sources = sources_for(request, self.repositories)
        (into / "distgate.repo").write_text(repo_text(sources))
        named = set(self.treefile.repositories)
        facts = {
            "include": str(self.treefile.path.resolve()),
            "ref": request.ref,
            "releasever": self.treefile.release,
            "repos": [source.name for source in sources if source.name not in named],
            # In single quotes rpm-ostree takes a text as it is.
            "packages": [*request.also, *(f"'{exactly(package)}'" for package in request.packages)],
        }
        definition = into / "tree.json"
        definition.write_text(json.dumps(facts, indent=2))
        return definition

    def _words(self, request: TreeRequest, definition: Path, answer: Path) -> list[str]:
        argv = [*self.command, "compose", "tree", "--unified-core", "--force-nocache"]
        argv += [f"--repo={request.build}", f"--cachedir={self.cache}", f"--write-commitid-to={answer}"]
        argv += [f"--write-composejson-to={answer.with_suffix('.json')}"]
        argv += [f"--add-metadata-string=version={request.version}"]
        argv += [f"--parent={request.parent}" if request.parent else "--no-parent"]
        return ["setpriv", "--pdeathsig", "KILL", *argv, str(definition)]

    def _judged(self, request: TreeRequest, output: str) -> DistgateError:
        line = _sentence(output)
        missing = _MISSING.search(output)
        if missing:
            names = missing[1].split(", ")
            under_test = {exactly(package) for package in request.packages}
            kind = InfrastructureError if under_test.intersection(names) else ConfigurationError
            return kind(f"rpm-ostree: {line}", hint="is it in the treefile's repositories?", evidence=output)
        if FULL.search(output):
            return full(request.build, output)
        if _REFUSED.search(output):
            return PackageError(f"rpm-ostree: {line}", evidence=output)
        return InfrastructureError(f"rpm-ostree: {line}", evidence=output)


def _sentence(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not wrong:
        return lines[-1] if lines else "it ended without a word"
    # A list of problems follows its heading.
    last = wrong[-1]
    problems = lines[last + 1 : last + 4] if lines[last].endswith(":") else []
    return " ".join([lines[last].removeprefix("error: "), *problems])
