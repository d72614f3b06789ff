"""Deployed disks by commit, kept because each test of a compose begins on the one before it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from distgate.atomic.disk import DiskDeployer, public_keys
from distgate.errors import InfrastructureError
from distgate.files import remove_tree
from distgate.locks import GUARD, Gone, exclusive, lease, unleased
from distgate.steps import Progress

_DISK = "disk.qcow2"
_ATTEMPTS = 3


@dataclass(frozen=True)
class DeployedDisks:
    """The disks in ``directory``, made by ``deployer``; processes that ask at once make one once."""

    directory: Path
    deployer: DiskDeployer

    @contextmanager
    def disk(
        self,
        repository: Path,
        rev: str,
        ref: str,
        *,
        remote_url: str,
        key: Path,
        progress: Progress = lambda _line: None,
        holder: str = "",
    ) -> Iterator[Path]:
        """A disk of the commit ``rev``, made if there is none; it stays for the block, whatever is pruned meanwhile.

        It is nobody's to write to: boot an overlay. ``holder`` is the run that asks. Raises as DiskDeployer.deploy.
        """
        entry = self.directory / f"{rev}-{self._identity(ref, remote_url, key)}"
        with ExitStack() as leases:
            for attempt in range(1, _ATTEMPTS + 1):
                if not (entry / _DISK).is_file():
                    self._make(entry, repository, rev, ref, remote_url, key, progress, holder)
                try:
                    leases.enter_context(lease(entry, holder))
                    break
                except Gone:  # pruned between the two
                    if attempt == _ATTEMPTS:
                        raise
            yield entry / _DISK

    def prune(self, repository: Path, *, dry_run: bool = False) -> tuple[str, ...]:
        """Remove the disks of commits that no ref of ``repository`` points to, unless somebody uses them; the commits
        of those that went, or would go. Tests begin on the head, and any other disk can be made again as long as its
        commit is there."""
        removed, heads = [], _heads(repository)
        for entry in sorted(self.directory.glob("[0-9a-f]*-*")):
            rev = entry.name.partition("-")[0]
            if rev in heads:
                continue
            with unleased(entry) as free:
                if free:
                    if not dry_run:
                        remove_tree(entry, ignore_errors=True)
                    removed.append(rev)
        return tuple(removed)

    def _identity(self, ref: str, remote_url: str, key: Path) -> str:
        """Changes with everything but the commit that a disk is made of."""
        inputs = (ref, remote_url, *public_keys(key), repr(sorted(asdict(self.deployer).items())))
        return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:12]

    def _make(
        self,
        entry: Path,
        repository: Path,
        rev: str,
        ref: str,
        remote_url: str,
        key: Path,
        progress: Progress,
        holder: str,
    ) -> None:
        lock = self.directory / "locks" / f"{entry.name}.lock"
        patience = self.deployer.timeout * 2

        def told(who: object) -> None:
            progress(f"a disk of {rev[:12]} is being made by {who}")

        with exclusive(lock, holder, f"a disk of commit {rev[:12]}", patience, told):
            if (entry / _DISK).is_file():
                return
            for abandoned in self.directory.glob(f".{entry.name}.*"):
                remove_tree(abandoned, ignore_errors=True)
            making = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=self.directory))
            try:
                self.deployer.deploy(
                    repository, rev, ref, making / _DISK, remote_url=remote_url, key=key, progress=progress
                )
                (making / GUARD).touch()
                making.rename(entry)
            except OSError as error:
                raise InfrastructureError(f"the disk of {rev[:12]} cannot be kept: {error}") from error
            finally:
                remove_tree(making, ignore_errors=True)


def _heads(repository: Path) -> set[str]:
    return {path.read_text().strip() for path in (repository / "refs/heads").rglob("*") if path.is_file()}
