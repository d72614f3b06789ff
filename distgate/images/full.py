"""The ``full`` way to an image: the installer runs anew, with the packages under test among those it installs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import PackageError
from distgate.files import tail_of
from distgate.images.base import BaseImage, ComposedImage
from distgate.images.contents import installed_in
from distgate.images.layered import exactly
from distgate.kickstart.base import ImageBuilder
from distgate.mounts.partitions import root_offset
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Steps


@dataclass(frozen=True)
class FullInstaller:
    """ImageComposer by a whole installation; ``timeout`` is in seconds.

    ``kickstart`` gives the text that installs the packages it is handed. ``name`` and ``release`` ("rawhide", "44")
    describe the image to ``builder``.
    """

    builder: ImageBuilder
    kickstart: Callable[[Sequence[Nevra]], str]
    name: str
    release: str
    timeout: float

    def compose(
        self,
        base: BaseImage,
        repository: Path,
        packages: Sequence[Nevra],
        into: Path,
        progress: Progress = lambda _line: None,
    ) -> ComposedImage:
        """Install an image that holds ``packages``; ``base`` is what it is compared with, and the installer looks
        for ``repository`` where the kickstart says that it is served.

        Raises PackageError when the packages keep it from being installed, or one is not in it afterwards.
        """
        text = self.kickstart(packages)
        built = self.builder.build(text, self.name, self.release, into, self.timeout, progress)
        steps = Steps(progress)
        try:
            with steps.step("read the RPM database"):
                installed = installed_in(built.path, root_offset(built.path))
            _check(packages, installed, built.log)
        except BaseException:
            into.unlink(missing_ok=True)
            raise
        return ComposedImage(
            path=into,
            base=base.identity,
            backing=None,
            installed=installed,
            requested=tuple(packages),
            size=into.stat().st_size,
            transaction=tail_of(built.log, 20_000),
            way="full",
            driver=built.driver,
            steps=(*built.steps, *steps.taken),
        )


def _check(packages: Sequence[Nevra], installed: Sequence[Nevra], log: Path) -> None:
    present = {exactly(package) for package in installed}
    missing = [package for package in packages if exactly(package) not in present]
    if missing:
        raise PackageError(
            f"not in the image after its installation: {', '.join(map(str, missing))}",
            hint="does another repository hold a newer build of it, or do packages of this build exclude each other?",
            evidence=tail_of(log),
        )
