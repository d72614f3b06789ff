"""The image composer: packages installed into an overlay of the base image, without booting it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import InfrastructureError, PackageError
from distgate.files import UnfinishedImage, unfinished
from distgate.images.base import BaseImage, ComposedImage, Omission
from distgate.images.contents import forced, lay_over, obsolete_one_another
from distgate.mounts.choice import DriverChoice, choose_driver
from distgate.rpm.nevra import Nevra, read_rpms
from distgate.rpm.transaction import Outcome, RepositorySource, Transaction, perform
from distgate.settings import settings
from distgate.steps import Progress, Steps

#: The name of the repository under test in dnf's output; it wins over the base's own repositories.
UNDER_TEST = "under-test"


@dataclass(frozen=True)
class OfflineInstaller:
    """ImageComposer by one dnf transaction; a compose takes a second or two. ``timeout`` is in seconds.

    ``driver`` mounts the image: auto takes the fastest that can be used here. guestfs needs a kernel
    (``appliance_kernel``: a directory of modules with a vmlinuz; None: this host's) and keeps its appliance in
    ``appliance_cache`` (None: it is built each time).
    """

    timeout: float = 600.0
    release: str = "12"
    driver: DriverChoice = "auto"
    appliance_kernel: Path | None = None
    appliance_cache: Path | None = None

    @classmethod
    def configured(cls) -> OfflineInstaller:
        """The one that this process's settings ask for. Raises ConfigurationError when they are wrong."""
        configured = settings()
        return cls(
            driver=configured.compose_driver,
            appliance_kernel=configured.appliance_kernel,
            appliance_cache=configured.cache / "appliance",
        )

    def compose(
        self,
        base: BaseImage,
        repository: Path,
        packages: Sequence[Nevra],
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> ComposedImage:
        """Install ``packages`` from ``repository``, their dependencies from the base's repositories too.

        Exactly these, whatever versions the base or its repositories have; of packages that exclude one another the
        greatest set that goes together, the rest being named in the record. Writes the overlay ``into``, which is
        absent after a failure. Raises PackageError when a package cannot be installed or does not fit, when a
        scriptlet fails or hangs, or when one is not in the image's RPM database afterwards.
        """
        if not base.path.exists():
            raise InfrastructureError(
                f"there is no base image {base.path}", hint="distgate images list shows those of this host"
            )
        into.parent.mkdir(parents=True, exist_ok=True)
        steps = Steps(progress)
        with unfinished(into) as overlay:
            with steps.step("prepare"):
                ordered = _in_order(packages)
                transaction = self._transaction(base, repository, ordered, overlay)
                lay_over(base.path, overlay.path)
            outcome = perform(transaction, into.parent, self.timeout, progress, keep_open=(overlay.number,))
            left_out = dict(outcome.omitted)
            chosen = tuple(package for package in ordered if exactly(package) not in left_out)
            _check(chosen, outcome)
            overlay.publish(into)
        return ComposedImage(
            path=into,
            base=base.identity,
            backing=base.path,
            installed=outcome.installed,
            requested=chosen,
            size=into.stat().st_size,
            transaction=outcome.transcript,
            driver=transaction.driver,
            omitted=tuple(
                Omission(package, left_out[exactly(package)]) for package in ordered if exactly(package) in left_out
            ),
            forced=forced(chosen, outcome.before),
            steps=(*steps.taken, *outcome.steps),
        )

    def _transaction(
        self, base: BaseImage, repository: Path, packages: Sequence[Nevra], overlay: UnfinishedImage
    ) -> Transaction:
        under_test = RepositorySource.at(UNDER_TEST, repository, priority=1)
        others = (RepositorySource.at(f"base-{number}", address) for number, address in enumerate(base.repositories))
        return Transaction(
            repositories=(under_test, *others),
            requests=tuple(exactly(package) for package in packages),
            image=overlay.path_for_child,
            offset=base.root_offset,
            release=self.release,
            driver=choose_driver(self.driver, self.appliance_kernel),
            choosing="first" if _obsolete_one_another(repository, packages) else "on-refusal",
            appliance_kernel=self.appliance_kernel,
            appliance_cache=self.appliance_cache,
        )


def exactly(package: Nevra) -> str:
    """The argument that makes dnf choose this package and no other version: the epoch is always there."""
    return f"{package.name}-{package.epoch}:{package.version}-{package.release}.{package.arch}"


def _in_order(packages: Sequence[Nevra]) -> tuple[Nevra, ...]:
    """Each once; the package that is called like its source first: of two that exclude each other it stays."""

    def importance(package: Nevra) -> tuple[bool, str]:
        return package.name != package.source_rpm.rsplit("-", 2)[0], package.name

    return tuple(sorted(dict.fromkeys(packages), key=importance))


def _obsolete_one_another(repository: Path, packages: Sequence[Nevra]) -> bool:
    if len(packages) < 2:
        return False
    names = {f"{package.nvr}.{package.arch}.rpm" for package in packages}
    paths = [path for path in repository.rglob("*.rpm") if path.name in names]
    return obsolete_one_another(read_rpms(sorted(paths)))


def _check(packages: Sequence[Nevra], outcome: Outcome) -> None:
    present = {exactly(package) for package in outcome.installed}
    missing = [str(package) for package in packages if exactly(package) not in present]
    if missing:
        raise PackageError(
            f"not in the image after a transaction that dnf calls complete: {', '.join(missing)}",
            hint="is it obsoleted by another package, or does a scriptlet remove it?",
            evidence=outcome.transcript,
        )
