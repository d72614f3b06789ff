"""dnf and rpm for one root, with nothing of this host's configuration, confined while scriptlets run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from distgate.errors import InfrastructureError, PackageError
from distgate.mounts.root import SHARED, InstallRoot
from distgate.process import Completed, run
from distgate.rpm.dnf_output import (
    at_fault,
    complaint,
    failed_scriptlets,
    is_planned,
    is_refusal,
    named_in,
    sentence,
    space_needed,
)
from distgate.rpm.installable import Refusal
from distgate.rpm.nevra import QUERY
from distgate.rpm.transaction import TRANSCRIPT_NAME, RepositorySource, Transaction
from distgate.sandbox.bubblewrap_rpm import bwrap_for_scriptlets
from distgate.steps import Steps

TIMEOUT = 3600.0  # the caller's deadline is shorter
#: English, because its output is parsed; the paths of the image, not of our virtual environment.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
EVIDENCE = 6000
_DATABASES = ("/usr/lib/sysimage/rpm", "/var/lib/rpm")
_SOLVING = re.compile(r" timer: (?:sack setup|depsolve): (\d+) ms")


class Refused(PackageError):
    """dnf or rpm declined before anything was changed."""


class Dnf:
    """Installs into ``installroot`` what ``transaction`` lists; its files and transcript are in ``workspace``."""

    def __init__(self, transaction: Transaction, installroot: InstallRoot, workspace: Path, steps: Steps) -> None:
        self.transaction = transaction
        self.installroot = installroot
        self.steps = steps
        self.home = workspace / "home"
        self.transcript = workspace / TRANSCRIPT_NAME
        self.configuration = workspace / "dnf.conf"
        self.shared = workspace / "shared"
        for name in ("home", "shared", "repos", "vars"):
            (workspace / name).mkdir()
        # Debian's rpm looks for its database in the home directory; an image says where it is.
        root = installroot.root
        database = next((path for path in _DATABASES if (root / path.lstrip("/")).is_dir()), _DATABASES[-1])
        (self.home / ".rpmmacros").write_text(f"%_dbpath {database}\n")
        local = [source.directory for source in transaction.repositories if source.is_local]
        self.bwrap = bwrap_for_scriptlets(writable=root, readable=[workspace, *local])
        self.configuration.write_text(self._main(workspace) + "".join(sections(transaction.repositories)))

    def query(self) -> list[str]:
        """Every package of the root's RPM database, as lines of nevra.QUERY."""
        lines = self.rpm("-qa", "--qf", QUERY).splitlines()
        return [line for line in lines if line and not line.startswith("gpg-pubkey|")]

    def rpm(self, *arguments: str) -> str:
        """What a question to the root's RPM database prints."""
        argv: list[str | Path] = ["rpm", "--root", self.installroot.root, *arguments]
        completed = run(argv, timeout=120, env=self._environment, split_errors=True, error=InfrastructureError)
        return completed.output

    def attempt(self, requests: Sequence[str]) -> Refusal | None:
        """Solve for ``requests`` and let rpm test the transaction, changing nothing; why it cannot be, or None.

        Raises what dnf deserves for everything but a refusal.
        """
        done, output = self._run("install", requests, "--setopt=tsflags=test")
        missing = [request for request in requests if not is_planned(request, output) and not self._has(request)]
        if done.returncode == 0 and not missing:
            return None
        if done.returncode and not is_refusal(output):
            raise self._error(output)
        line = complaint(output) if done.returncode else f"{', '.join(missing)}: replaced by another package"
        return Refusal(line, output, tuple(named_in(requests, output)))

    def install(self, requests: Sequence[str], installed: Sequence[str]) -> None:
        """Install what was asked for, downloads first and then without network; raises what dnf deserves.

        ``installed`` is what ``query`` returned before: a rebuild under a name and release that the root has already
        has the same NEVRA and other content, and is installed again.
        """
        before = {as_request(line) for line in installed}
        again = [request for request in requests if request in before]
        new = [request for request in requests if request not in before]
        for verb, batch in (("install", new), ("reinstall", again)):
            if not batch:
                continue
            done, output = self._run(verb, batch, timed=True)
            if done.returncode or failed_scriptlets(output):
                error = self._error(output)
                # Half of it is in already: it can be refused no more.
                raise PackageError(*error.args, evidence=error.evidence) if verb == "reinstall" and new else error

    def _run(self, verb: str, requests: Sequence[str], *options: str, timed: bool = False) -> tuple[Completed, str]:
        if self.installroot.binary_attributes is False and not options:
            options = ("--setopt=tsflags=nocaps",)
        steps = self.steps if timed else Steps()
        if not self._all_local:
            with steps.step("download"):
                done, output = self._dnf((), verb, "--downloadonly", *requests)
            if done.returncode:
                return done, output
            options = (*options, "-C")
        solved = self._solving()
        timer = Steps()
        with timer.step("dnf"):
            done, output = self._dnf(self.bwrap, *options, verb, *requests)
        solving = self._solving() - solved
        if timed:
            steps.add("solve", solving)
            steps.add("transaction", timer.taken[0].seconds - solving)
        return done, output

    def _solving(self) -> float:
        """The seconds that dnf's own log gives to reading metadata and to solving, so far."""
        log = self.shared / "log" / "dnf.log"
        output = log.read_text(errors="replace") if log.exists() else ""
        return sum(int(milliseconds) for milliseconds in _SOLVING.findall(output)) / 1000

    def _has(self, request: str) -> bool:
        return any(as_request(line) == request for line in self.query())

    @property
    def _all_local(self) -> bool:
        return all(source.is_local for source in self.transaction.repositories)

    @property
    def _environment(self) -> dict[str, str]:
        return ENVIRONMENT | {"HOME": str(self.home)}

    def _dnf(self, prefix: Sequence[str], *arguments: str) -> tuple[Completed, str]:
        argv: list[str | Path] = [
            *prefix,
            "dnf",
            "-y",
            "-c",
            self.configuration,
            f"--installroot={self.installroot.root}",
        ]
        argv += [f"--releasever={self.transaction.release}", *arguments]
        before = self.transcript.stat().st_size
        # Straight into the transcript: at the caller's deadline it shows which scriptlet hangs.
        done = run(argv, timeout=TIMEOUT, env=self._environment, allowed=range(256), log_to=self.transcript)
        return done, self.transcript.read_bytes()[before:].decode("utf-8", "replace")

    def _error(self, output: str) -> PackageError | InfrastructureError:
        blame = at_fault(output)
        if blame == "image-full" and self.transaction.root:
            return InfrastructureError(
                f"the packages do not fit on the disk of {self.installroot.root}: {space_needed(output)}",
                hint="the disk of this host is full",
                evidence=output[-EVIDENCE:],
            )
        if blame == "image-full":
            space = f"{space_needed(output)}; of {free_space(self.installroot.root)}"
            return PackageError(
                f"the packages do not fit into the image: {space}",
                hint="if they are that large for a reason, the base image's root must grow (part / in its kickstart)",
                evidence=output[-EVIDENCE:],
            )
        kind: type[PackageError | InfrastructureError] = InfrastructureError
        if failed_scriptlets(output) or blame == "package":
            kind = Refused if is_refusal(output) else PackageError
        return kind(sentence(output), evidence=output[-EVIDENCE:])

    def _main(self, workspace: Path) -> str:
        options = {
            "gpgcheck": 0,
            "localpkg_gpgcheck": 0,
            "plugins": 0,
            "best": 1,
            "install_weak_deps": int(self.transaction.weak_dependencies),
            "metadata_expire": 0,
            "keepcache": 1,
            "reposdir": workspace / "repos",
            "varsdir": workspace / "vars",
            # dnf looks for both below the root, whatever its options say: they must not fill the image.
            "cachedir": f"{SHARED}/cache",
            "logdir": f"{SHARED}/log",
            "color": "never",
            "excludepkgs": " ".join(self.transaction.excluded),
        }
        return "[main]\n" + option_lines(options)


def sections(repositories: Iterable[RepositorySource]) -> Iterator[str]:
    """The part of dnf's configuration that describes each repository."""
    for source in repositories:
        options: dict[str, object] = {
            "name": source.name,
            "baseurl": source.baseurl,
            "mirrorlist": source.mirrorlist,
            "metalink": source.metalink,
            "priority": source.priority,
            "cost": source.cost,
            "excludepkgs": " ".join(source.excluded),
        }
        yield f"\n[{source.name}]\n" + option_lines(options)


def as_request(line: str) -> str:
    """The argument that makes dnf choose the package of one line of nevra.QUERY, and no other version."""
    name, epoch, version, release, arch, _ = line.split("|")
    return f"{name}-{epoch}:{version}-{release}.{arch}"


def free_space(root: Path) -> str:
    """How full the file system of ``root`` is, in words."""
    state = os.statvfs(root)
    free, whole = (blocks * state.f_frsize / 1e6 for blocks in (state.f_bavail, state.f_blocks))
    return f"{whole:.0f} MB it has {free:.0f} MB free"


def option_lines(options: Mapping[str, object]) -> str:
    """Options as dnf's configuration has them; those that are empty are left to dnf."""
    return "".join(f"{key}={value}\n" for key, value in options.items() if value != "")
