"""The image composer: packages installed into an overlay of the base image, without booting it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.drivers.base import BaseImage, ComposedImage, Progress
from distgate.drivers.transaction import Outcome, RepositorySource, Transaction, perform
from distgate.errors import InfrastructureError, PackageError
from distgate.packages import Nevra
from distgate.process import run

#: The name of the repository under test in dnf's words; it wins over the base's own repositories.
UNDER_TEST = "under-test"


@dataclass(frozen=True)
class OfflineInstaller:
    """ImageComposer by one dnf transaction; a compose takes a second or two. ``timeout`` is in seconds."""

    timeout: float = 600.0
    release: str = "12"

    def compose(
        self,
        base: BaseImage,
        repository: Path,
        packages: Sequence[Nevra],
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> ComposedImage:
        """Install exactly ``packages`` from ``repository``, their dependencies from the base's repositories too.

        Writes the overlay ``into``, which is absent after a failure. Raises PackageError when the packages
        cannot be installed, a scriptlet fails, or one of them is not in the image's RPM database afterwards.
        """
        into.parent.mkdir(parents=True, exist_ok=True)
        overlay = into.with_name(f".{into.name}.composing")
        try:
            self._create(base, overlay)
            outcome = perform(self._transaction(base, repository, packages, overlay), into.parent, self.timeout)
            _check(packages, outcome)
            overlay.rename(into)
        finally:
            overlay.unlink(missing_ok=True)
        return ComposedImage(
            path=into,
            base=base.identity,
            backing=base.path,
            installed=outcome.installed,
            requested=tuple(packages),
            size=into.stat().st_size,
            transaction=outcome.transcript,
        )

    def _create(self, base: BaseImage, overlay: Path) -> None:
        if not base.path.exists():
            raise InfrastructureError(f"there is no base image {base.path}", hint="it is made by: distgate lab image")
        words: list[str | Path] = [
            "qemu-img",
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            base.path.resolve(),
            "-F",
            "qcow2",
            overlay,
        ]
        run(words, timeout=60, error=InfrastructureError)

    def _transaction(
        self, base: BaseImage, repository: Path, packages: Sequence[Nevra], overlay: Path
    ) -> Transaction:
        own = RepositorySource.at(UNDER_TEST, repository, priority=1)
        others = (RepositorySource.at(f"base-{number}", place) for number, place in enumerate(base.repositories))
        return Transaction(
            repositories=(own, *others),
            requests=tuple(exactly(package) for package in packages),
            image=overlay.resolve(),
            offset=base.root_offset,
            release=self.release,
        )


def exactly(package: Nevra) -> str:
    """The words that make dnf choose this package and no other version: the epoch is always there."""
    return f"{package.name}-{package.epoch}:{package.version}-{package.release}.{package.arch}"


def _check(packages: Sequence[Nevra], outcome: Outcome) -> None:
    there = {exactly(package) for package in outcome.installed}
    missing = [str(package) for package in packages if exactly(package) not in there]
    if missing:
        raise PackageError(
            f"not in the image after a transaction that dnf calls complete: {', '.join(missing)}",
            hint="is it obsoleted by another package, or does a scriptlet remove it?",
            evidence=outcome.transcript,
        )
