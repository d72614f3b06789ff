"""A source package of one commit, whose release names it; rpmbuild makes it in a sandbox: a spec file is a program.

``%(...)``, ``%{lua:...}`` and the rest run as soon as the file is read. They see the checkout, without git's own
directory, and this host's rpm.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from distgate.builds.checkout import checkout as check_out
from distgate.builds.checkout import commit_count
from distgate.builds.lookaside import Lookaside
from distgate.builds.release import mark_of, original, uses_autorelease, with_commit
from distgate.errors import DistgateError, PackageError
from distgate.files import remove_tree, sha256_of, tail_of, walk
from distgate.rpm.nevra import read_rpms
from distgate.sandbox.sandbox import MIB, Limits, Sandbox
from distgate.text import printable

#: Seconds in which rpmbuild reads a spec file and packs its sources; a kernel takes half a minute.
TIMEOUT = 600.0
_SPEC_LIMIT = 4 * MIB
#: Beyond the sources themselves, which a source package holds once more.
_OVERHEAD = 64 * MIB
_NAME = re.compile(r"[A-Za-z0-9][\w.+~^-]*\.src\.rpm")
_DIST = re.compile(r"\.fc(\d+)\b.*")


@dataclass(frozen=True)
class SourcePackage:
    """An SRPM on disk: ``nvr`` names the commit, ``original_nvr`` is that of the spec file as it is in dist-git."""

    path: Path
    name: str
    nvr: str
    original_nvr: str
    sha256: str


@dataclass(frozen=True)
class Commit:
    """The commit to make a package of. ``count`` counts all commits that led to ``rev``, ``releases`` those that
    rpmautospec counts (distgate.builds.checkout.CommitCount)."""

    namespace: str
    repo: str
    rev: str
    count: int
    releases: int = 1


@dataclass(frozen=True)
class SourcePackager:
    """Makes source packages with the sources of ``lookaside``; ``timeout`` is rpmbuild's, in seconds.

    Nothing is left below ``scratch`` (the temporary directory).
    """

    lookaside: Lookaside
    limits: Limits = field(default_factory=lambda: Limits(scratch=64 * MIB))
    timeout: float = TIMEOUT
    scratch: Path | None = None

    def package(self, url: str, namespace: str, repo: str, rev: str, dist: str, into: Path) -> SourcePackage:
        """The SRPM of the commit ``rev`` of the repository at ``url``, alone in the directory ``into``.

        See ``make``, ``checkout`` and ``commit_count``.
        """
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tree-", dir=into) as private:
            tree = check_out(url, rev, Path(private) / repo)
            spec = find_spec(tree)
            spec_name = spec.name if uses_autorelease(read_spec(spec)) else ""
            count = commit_count(url, rev, spec=spec_name, scratch=self.scratch)
            commit = Commit(namespace, repo, rev, count.commits, count.releases or 1)
            return self.make(tree, commit, dist, into)

    def make(self, checkout: Path, commit: Commit, dist: str, into: Path) -> SourcePackage:
        """The SRPM of ``commit`` in the directory ``into``, with rpmbuild's output beside it as ``rpmbuild.log``.

        ``checkout`` is changed: sources are added, the spec file is edited, git's own directory goes. ``dist`` is the
        distribution's tag (``.fc44``). Raises PackageError with rpm's output for a spec file that it cannot read,
        that does not end in time or whose release does not show the commit, and what ``Lookaside.fetch`` raises.
        """
        checkout, into = checkout.resolve(), into.resolve()
        spec = find_spec(checkout)
        _edit(spec, commit)
        self.lookaside.fetch(checkout / "sources", commit.namespace, commit.repo, checkout)
        remove_tree(checkout / ".git", ignore_errors=True)  # FETCH_HEAD has the URL, and that may have a password
        into.mkdir(parents=True, exist_ok=True)
        srpm = self._rpmbuild(checkout, spec, dist, into)
        return _checked_package(srpm, commit)

    def _rpmbuild(self, checkout: Path, spec: Path, dist: str, into: Path) -> Path:
        size = _make_readable(checkout)
        limits = replace(self.limits, artifacts=size + _OVERHEAD, artifact_files=16)
        out, log = into / "srpm", into / "rpmbuild.log"
        out.mkdir()
        ended = Sandbox(limits, scratch=self.scratch).run(
            ["rpmbuild", "-bs", "--nodeps", *_definitions(checkout, out, dist), spec],
            env={"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108 - its own
            timeout=self.timeout,
            log_to=log,
            readable=[checkout],
            artifacts=out,
        )
        if ended.timed_out:
            raise _unbuildable(f"rpmbuild did not get through {spec.name} within {self.timeout:g} s", log)
        if ended.returncode:
            raise _unbuildable(f"rpmbuild makes no source package of {spec.name}", log)
        srpms = [path for path in sorted(out.iterdir()) if _NAME.fullmatch(path.name)]
        if len(srpms) != 1:
            raise _unbuildable(f"rpmbuild left {len(srpms)} source packages of {spec.name}, not one", log)
        srpm = srpms[0].replace(into / srpms[0].name)
        remove_tree(out)
        return srpm


def find_spec(checkout: Path) -> Path:
    """The spec file of a checkout. Raises PackageError when there is none, more than one, or no regular file."""
    specs = sorted(path for path in checkout.iterdir() if path.suffix == ".spec")
    if len(specs) != 1 or specs[0].is_symlink() or not specs[0].is_file():
        names = ", ".join(printable(path.name, newlines=False) for path in specs)
        raise PackageError(f"the repository has not one spec file but {names or 'none'}")
    return specs[0]


def read_spec(spec: Path) -> str:
    """The text of a spec file; bytes that are no UTF-8 are kept. Raises PackageError when it has more than 4 MiB."""
    if spec.stat().st_size > _SPEC_LIMIT:
        raise PackageError(f"{spec.name} is larger than {_SPEC_LIMIT // MIB} MiB")
    return spec.read_bytes().decode("utf-8", "surrogateescape")


def _edit(spec: Path, commit: Commit) -> None:
    changed = with_commit(read_spec(spec), commit.count, commit.rev, autorelease=commit.releases)
    spec.write_bytes(changed.encode("utf-8", "surrogateescape"))


def _make_readable(checkout: Path) -> int:
    """Let the sandbox's user read the checkout, whatever the worker's umask is; its size in bytes."""
    size = 0
    checkout.chmod(0o755)
    for entry in walk(checkout):
        if entry.is_directory:
            (checkout / entry.path).chmod(0o755)
        elif entry.is_file:
            (checkout / entry.path).chmod(0o644 | entry.status.st_mode & 0o111)
            size += entry.status.st_size
    return size


def _definitions(checkout: Path, out: Path, dist: str) -> list[str]:
    number = _DIST.fullmatch(dist)
    defined = {
        "_topdir": out,
        "_sourcedir": checkout,
        "_specdir": checkout,
        "_srcrpmdir": out,
        "_builddir": "/tmp",  # noqa: S108 - the sandbox's own
        "_tmppath": "/tmp",  # noqa: S108
        "dist": dist,
        **({"fedora": number[1]} if number else {}),
    }
    return [argument for name, value in defined.items() for argument in ("--define", f"{name} {value}")]


def _checked_package(srpm: Path, commit: Commit) -> SourcePackage:
    try:
        (rpm,) = read_rpms([srpm])
    except DistgateError as error:  # what lies there is what the spec file's macros have put there
        raise PackageError(f"{srpm.name} is no RPM", evidence=error.evidence) from error
    nvr = rpm.nevra.nvr
    if srpm.name != f"{nvr}.src.rpm":
        raise PackageError(f"the source package {srpm.name} says that it is {printable(nvr, newlines=False)}")
    before = original(nvr, commit.rev)
    if mark_of(commit.count, commit.rev) not in rpm.nevra.release:
        raise PackageError(f"the release of {nvr} names another commit than {commit.rev}")
    return SourcePackage(srpm, rpm.nevra.name, nvr, before, sha256_of(srpm))


def _unbuildable(message: str, log: Path) -> PackageError:
    return PackageError(
        message,
        hint="rpm's output tells why; macros of Fedora (redhat-rpm-config, ...) have to be installed on the worker",
        evidence=printable(tail_of(log)),
    )
