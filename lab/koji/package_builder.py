"""The builder behind the hub stand-in: a commit becomes a source package, and that becomes RPMs, by rpmbuild."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import koji

from distgate.process import run
from lab.dist_git.repository import git
from lab.koji.build_root import BuildRoots, RootFailed, Sandbox
from lab.koji.checkout import Scm, check_out, fetch_sources, find_spec
from lab.koji.task_process import run_logged
from lab.koji.tasks import TaskFault

_MACROS = Path(__file__).with_name("rpm_macros.txt")
_BUILD_SECONDS = 3600.0
_AUTORELEASE = "%define autorelease(e:s:pb:n) {number}%{{?dist}}\n%define autochangelog %{{nil}}\n"
#: mock's exit statuses: the build failed, the build root could not be made.
_BUILD_FAILED, _ROOT_FAILED = 1, 30


@dataclass(frozen=True)
class Job:
    """One child task's surroundings: where it may write, what it delivers, and how it is stopped."""

    work: Path
    output: Path
    fedora: int
    stop: threading.Event

    def log(self, name: str) -> Path:
        path = self.output / f"{name}.log"
        path.touch()
        return path


@dataclass(frozen=True)
class PackageBuilder:
    """Builds for one dist-git with one set of build roots."""

    roots: BuildRoots
    dist_git: str

    def source_package(self, source: str, job: Job) -> Path:
        """Check ``source`` out and make its SRPM in the job's output. Raises TaskFault as koji words it."""
        scm = Scm.parse(source, self.dist_git)
        checkout = job.work / scm.package
        check_out(scm, checkout, job.log("checkout"), job.stop)
        fetch_sources(scm, checkout, f"{self.dist_git}/repo/pkgs", job.log("checkout"))
        spec = find_spec(checkout)
        _expand_autorelease(checkout, checkout / spec)
        with _building(job, "error building srpm"):
            root = self.roots.base(job.log("root"), job.stop)
            sandbox = _sandbox(root, job)
            sources = sandbox.work / "build" / "SOURCES"
            shutil.copytree(checkout, sources, symlinks=True, ignore=shutil.ignore_patterns(".git"))
            _rpmbuild(sandbox, job, "-bs", f"/builddir/build/SOURCES/{spec}")
        (package,) = sorted(sandbox.work.glob("build/SRPMS/*.src.rpm"))
        return _deliver(package, job)

    def rebuilt_source_package(self, uploaded: Path, job: Job) -> Path:
        """Make an uploaded SRPM anew for the distribution in the job's output. Raises TaskFault as koji words it."""
        with _building(job, "error building srpm"):
            root = self.roots.base(job.log("root"), job.stop)
            sandbox = _sandbox(root, job)
            shutil.copyfile(uploaded, sandbox.work / "uploaded.src.rpm")
            _in_root(sandbox, job, "rpm", "--install", "--nodeps", "/builddir/uploaded.src.rpm")
            specs = sorted(path.name for path in sandbox.work.glob("build/SPECS/*.spec"))
            if len(specs) != 1:
                raise TaskFault(koji.BuildError.faultCode, f"BuildError: {len(specs)} spec files in {uploaded.name}")
            _rpmbuild(sandbox, job, "-bs", f"/builddir/build/SPECS/{specs[0]}")
        (package,) = sorted(sandbox.work.glob("build/SRPMS/*.src.rpm"))
        return _deliver(package, job)

    def binary_packages(self, source_package: Path, arch: str, job: Job) -> list[Path]:
        """Build ``source_package`` for ``arch`` into the job's output. Raises TaskFault as koji words it."""
        with _building(job, f"error building package (arch {arch})"):
            root = self.roots.with_requirements(requirements(source_package), job.log("root"), job.stop)
            sandbox = _sandbox(root, job)
            shutil.copyfile(source_package, sandbox.work / source_package.name)
            target = [] if arch == "noarch" else ["--target", arch]
            _rpmbuild(sandbox, job, *target, "--rebuild", f"/builddir/{source_package.name}")
        return [_deliver(rpm, job) for rpm in sorted(sandbox.work.glob("build/RPMS/*/*.rpm"))]


def requirements(source_package: Path) -> list[str]:
    """The BuildRequires in a source package's header, without what rpm itself provides."""
    listing = run(["rpm", "-qp", "--nosignature", "--requires", source_package], timeout=30, split_errors=True)
    return sorted({line.strip() for line in listing.output.splitlines() if not line.startswith("rpmlib(")})


def architectures(source_package: Path, override: str, default: str) -> list[str]:
    """For which architectures to build: noarch when the package says so, else ``override`` or ``default``."""
    query = ["rpm", "-qp", "--nosignature", "--qf", "[%{BUILDARCHS} ]", str(source_package)]
    only = run(query, timeout=30, split_errors=True).output.split()
    return ["noarch"] if only == ["noarch"] else override.split() or [default]


def _sandbox(root: Path, job: Job) -> Sandbox:
    inside = job.work / "builddir"
    for name in ("SPECS", "SRPMS", "RPMS", "BUILD", "BUILDROOT"):
        (inside / "build" / name).mkdir(parents=True, exist_ok=True)
    macros = _MACROS.read_text().format(fedora=job.fedora, jobs=os.cpu_count() or 1)
    (inside / ".rpmmacros").write_text(macros)
    return Sandbox(root, inside)


def _rpmbuild(sandbox: Sandbox, job: Job, *arguments: str) -> None:
    _in_root(sandbox, job, "rpmbuild", *arguments)


def _in_root(sandbox: Sandbox, job: Job, *argv: str) -> None:
    sandbox.prepare()
    status = run_logged(sandbox.argv(argv), job.log("build"), job.stop, _BUILD_SECONDS)
    with job.log("build").open("a") as stream:
        stream.write(f"Child return code was: {status}\n")
    if status != 0:
        raise _MockFailed(_BUILD_FAILED)


class _MockFailed(Exception):
    pass


@contextmanager
def _building(job: Job, what: str) -> Iterator[None]:
    """Turns failures into the errors of Koji's builder, which name the log that tells more."""
    _state(job, "Start: build")
    try:
        yield
    except (_MockFailed, RootFailed) as error:
        status, log = (_ROOT_FAILED, "root") if isinstance(error, RootFailed) else (_BUILD_FAILED, "build")
        _state(job, f"Failed: see {log}.log")
        text = f"BuildError: {what}, mock exited with status {status}; see {log}.log for more information"
        raise TaskFault(koji.BuildError.faultCode, text) from error
    _state(job, "Finish: build")


def _state(job: Job, what: str) -> None:
    with job.log("state").open("a") as stream:
        stream.write(f"{datetime.now().isoformat(sep=' ', timespec='milliseconds')} - {what}\n")


def _deliver(package: Path, job: Job) -> Path:
    # Copied, not moved: what is delivered belongs to the hub and not to the user that built it, who may have put
    # a link to a file of another user there.
    if not package.is_file() or not package.resolve().is_relative_to(job.work.resolve()):
        raise TaskFault(koji.BuildError.faultCode, f"BuildError: {package.name} is not a file of the build")
    return Path(shutil.copyfile(package, job.output / package.name))


def _expand_autorelease(checkout: Path, spec: Path) -> None:
    """Prepend the release number where rpmautospec would: the number of commits that led here."""
    text = spec.read_text(errors="surrogateescape")
    if re.search(r"%\{?\??(autorelease|autochangelog)\b", text):
        number = git("-C", checkout, "rev-list", "--count", "HEAD")
        spec.write_text(_AUTORELEASE.format(number=number) + text, errors="surrogateescape")
