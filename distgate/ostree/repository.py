"""One OSTree repository, through the command ostree: every change of it is whole or absent."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import remove_tree
from distgate.process import Completed, ProcessFailed, run

Mode = Literal["bare", "bare-user", "archive"]

#: Seconds for anything that reads or writes a whole tree.
_LONG = 3600.0
_SHORT = 120.0
#: What ostree says when its disk has no room.
FULL = re.compile(r"No space left on device|min-free-space|Disk quota exceeded")
#: A fast compression: a tree is published for one upgrade, and the network is near.
_ZLIB_LEVEL = "1"


@dataclass(frozen=True)
class Commit:
    """One commit that a repository holds whole; ``time`` is in seconds of the epoch."""

    rev: str
    parent: str | None
    time: float
    version: str


@dataclass(frozen=True)
class SigningKey:
    """What commits and summaries are signed with: ``gpg``, a key ID in the keyring directory ``home``, or
    ``ed25519``, the file of a secret key as ``ostree sign`` reads it."""

    kind: Literal["gpg", "ed25519"]
    key: str
    home: Path | None = None

    def for_summary(self) -> list[str]:
        """The options of ``ostree summary`` that sign it."""
        if self.kind == "gpg":
            return [f"--gpg-sign={self.key}", *self._home()]
        return [f"--sign={self._secret()}", "--sign-type=ed25519"]

    def for_commit(self, rev: str) -> list[str]:
        """The words of ``ostree`` that sign a commit."""
        if self.kind == "gpg":
            return ["gpg-sign", *self._home(), rev, self.key]
        return ["sign", "--sign-type=ed25519", rev, self._secret()]

    def _home(self) -> list[str]:
        return [f"--gpg-homedir={self.home}"] if self.home else []

    def _secret(self) -> str:
        try:
            return Path(self.key).read_text().strip()
        except OSError as error:
            raise ConfigurationError(f"cannot read the signing key {self.key}: {error.strerror}") from None


class OstreeRepository:
    """The repository at ``path``. Every method raises InfrastructureError with ostree's words; for a full disk, one
    that says so. What is started here ends with us."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, mode: Mode) -> None:
        """Make the repository unless it is there."""
        if (self.path / "config").exists() and (self.path / "refs/heads").is_dir():
            return
        self.path.mkdir(parents=True, exist_ok=True)
        self._ostree("init", f"--mode={mode}")
        if mode == "archive":
            self._ostree("config", "set", "archive.zlib-level", _ZLIB_LEVEL)

    def head(self, ref: str) -> str | None:
        """The commit that ``ref`` points to."""
        try:
            return (self.path / "refs/heads" / ref).read_text().strip() or None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def set_ref(self, ref: str, rev: str | None) -> None:
        """Make ``ref`` point to ``rev``, or remove it."""
        if rev:
            self._ostree("refs", "--force", f"--create={ref}", rev)
        elif self.head(ref):
            self._ostree("refs", "--delete", ref)

    def holds(self, rev: str) -> bool:
        """Whether ``rev`` is here with all its files."""
        return self._commit_file(rev).exists() and not (self.path / f"state/{rev}.commitpartial").exists()

    def commit(self, root: Path, ref: str, version: str, parent: str | None, *options: str) -> str:
        """Commit the directory ``root``, consuming it, to no ref but bound to ``ref``; the new commit's checksum."""
        arguments = ["--orphan", f"--bind-ref={ref}", f"--parent={parent or 'none'}", f"--subject={ref} {version}"]
        arguments += [f"--add-metadata-string=version={version}", f"--tree=dir={root}", "--consume", *options]
        return self._ostree("commit", *arguments).output.split()[-1]

    def pull(self, source: Path, rev: str) -> None:
        """Copy ``rev`` from the repository ``source``; it counts as held when everything of it is here."""
        self._ostree("pull-local", str(source), rev)

    def make_delta(self, parent: str, rev: str) -> int:
        """Make what a client on ``parent`` fetches to get to ``rev``; its size in bytes."""
        self._ostree("static-delta", "generate", f"--from={parent}", f"--to={rev}", "--if-not-exists")
        return sum(file.stat().st_size for file in self._delta(parent, rev).iterdir())

    def sign(self, rev: str, key: SigningKey) -> None:
        """Sign a commit; a second time changes nothing that matters."""
        self._check_signing(key)
        done = self._ostree(*key.for_commit(rev), allowed=(0, 1))
        if done.returncode and "already" not in done.output:
            raise InfrastructureError(f"commit {rev[:12]} could not be signed", evidence=done.output)

    def write_summary(self, key: SigningKey | None = None) -> None:
        """Bring the summary up to date with the refs and the deltas."""
        self._ostree("summary", "--update", *(key.for_summary() if key else ()))

    def checkout(self, rev: str, subpath: str, into: Path) -> bool:
        """Copy the directory ``subpath`` of a commit into the new directory ``into``; False when it has none."""
        listing = self._ostree("ls", "--dironly", rev, subpath, timeout=_SHORT, allowed=(0, 1))
        if listing.returncode or not listing.output.startswith("d"):
            return False
        self._ostree("checkout", "--user-mode", "--force-copy", f"--subpath={subpath}", rev, str(into))
        return True

    def size_of(self, rev: str) -> int:
        """The bytes of a commit's files, each counted where it appears."""
        listing = self._ostree("ls", "--recursive", rev).output
        return sum(int(size) for size in re.findall(r"(?m)^-\d+ \d+ \d+ +(\d+) ", listing))

    def commits(self) -> tuple[Commit, ...]:
        """Every commit that is held whole, the oldest first."""
        commits = (self.describe(rev) for rev in sorted(self._revs()) if self.holds(rev))
        return tuple(sorted(commits, key=lambda commit: commit.time))

    def delete(self, revs: Sequence[str]) -> None:
        """Remove commits that no ref points to, and everything that only they needed."""
        for rev in revs:
            self._ostree("prune", f"--delete-commit={rev}")
        # prune leaves the deltas that begin at a commit which is gone.
        for delta in self._ostree("static-delta", "list", timeout=_SHORT).output.split():
            if delta.partition("-")[0] in revs:
                self._ostree("static-delta", "delete", delta)

    def remove_leftovers(self) -> None:
        """Remove what killed processes left: commits that are not whole, files under way, unreachable objects."""
        remove_tree(self.path / "tmp", ignore_errors=True)
        (self.path / "tmp/cache").mkdir(parents=True, exist_ok=True)
        for partial in (self.path / "state").glob("*.commitpartial"):
            self._commit_file(partial.name.split(".")[0]).unlink(missing_ok=True)
            partial.unlink()
        self._ostree("prune")

    def keep_only_refs(self) -> None:
        """Remove every commit but those that refs point to."""
        self._ostree("prune", "--refs-only", "--depth=0")

    def _revs(self) -> Iterator[str]:
        for file in (self.path / "objects").glob("??/*.commit"):
            yield file.parent.name + file.stem

    def describe(self, rev: str) -> Commit:
        """What a commit says of itself."""
        output = self._ostree("show", rev, timeout=_SHORT).output
        parent = re.search(r"(?m)^Parent:\s+([0-9a-f]{64})$", output)
        version = re.search(r"(?m)^Version:\s+(.+)$", output)
        date = re.search(r"(?m)^Date:\s+(.+)$", output)
        if not date:
            raise InfrastructureError(f"ostree does not say when {rev[:12]} was made", evidence=output)
        time = datetime.strptime(date[1].strip(), "%Y-%m-%d %H:%M:%S %z").timestamp()
        return Commit(rev, parent[1] if parent else None, time, version[1].strip() if version else "")

    def _commit_file(self, rev: str) -> Path:
        return self.path / "objects" / rev[:2] / f"{rev[2:]}.commit"

    def _delta(self, parent: str, rev: str) -> Path:
        old, new = _short(parent), _short(rev)
        return self.path / "deltas" / old[:2] / f"{old[2:]}-{new}"

    def _check_signing(self, key: SigningKey) -> None:
        feature = {"gpg": "gpgme", "ed25519": "sign-ed25519"}[key.kind]
        features = run(["ostree", "--version"], timeout=_SHORT).output
        if feature not in features:
            raise ConfigurationError(
                f"this ostree cannot sign with {key.kind}", hint="give a gpg key, or install an ostree that can"
            )

    def _ostree(self, *arguments: str, timeout: float = _LONG, allowed: Sequence[int] = (0,)) -> Completed:
        verb = arguments[:2] if arguments[0] in ("static-delta", "config") else arguments[:1]
        argv = ["setpriv", "--pdeathsig", "KILL", "ostree", *verb, f"--repo={self.path}", *arguments[len(verb) :]]
        try:
            return run(argv, timeout=timeout, allowed=allowed)
        except ProcessFailed as error:
            if FULL.search(error.evidence):
                raise full(self.path, error.evidence) from None
            raise


def _short(rev: str) -> str:
    """A commit as ostree names the directories of static deltas."""
    return base64.b64encode(bytes.fromhex(rev)).decode().rstrip("=").replace("/", "_")


def full(path: Path, evidence: str) -> InfrastructureError:
    """What to raise when the disk of a repository has no room."""
    return InfrastructureError(
        f"the disk of the OSTree repository {path} is full",
        hint="prune trees and images, or give it room; ostree leaves 3 % free (core.min-free-space-percent)",
        evidence=evidence,
    )
