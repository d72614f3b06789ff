"""What RPMs are in an image, and how those of a build relate to them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import unfinished
from distgate.images.base import Forced
from distgate.mounts.choice import DriverChoice, choose_driver
from distgate.process import run
from distgate.rpm.nevra import Nevra, RpmFile
from distgate.rpm.transaction import Transaction, perform


def installed_in(
    image: Path,
    root_offset: int,
    driver: DriverChoice = "auto",
    scratch: Path | None = None,
    timeout: float = 300.0,
    appliance_kernel: Path | None = None,
    appliance_cache: Path | None = None,
) -> tuple[Nevra, ...]:
    """The RPM database of a qcow2 ``image`` whose root starts at ``root_offset`` bytes, sorted.

    The image stays as it is: ``scratch`` is a directory for a throw-away overlay (None: the system's). Raises
    InfrastructureError when the image cannot be read.
    """
    with (
        tempfile.TemporaryDirectory(prefix="distgate-rpms-", dir=scratch) as name,
        unfinished(Path(name) / "overlay.qcow2") as overlay,
    ):
        lay_over(image, overlay.path)
        reading = Transaction(
            repositories=(),
            requests=(),
            image=overlay.path_for_child,
            offset=root_offset,
            driver=choose_driver(driver, appliance_kernel),
            appliance_kernel=appliance_kernel,
            appliance_cache=appliance_cache,
        )
        return perform(reading, Path(name), timeout, keep_open=(overlay.number,)).installed


def lay_over(base: Path, overlay: Path) -> None:
    """Make ``overlay`` an empty qcow2 layer over the qcow2 ``base``. Raises InfrastructureError."""
    layer: list[str | Path] = ["-f", "qcow2", "-b", base.resolve(), "-F", "qcow2", overlay]
    run(["qemu-img", "create", "-q", *layer], timeout=60, error=InfrastructureError)


def forced(requested: Iterable[Nevra], before: Sequence[Nevra]) -> tuple[Forced, ...]:
    """Those of ``requested`` that an image which held ``before`` would not have taken by itself."""
    replaced = []
    for package in requested:
        for old in (
            package_before
            for package_before in before
            if package_before.name == package.name and _replaces(package, package_before)
        ):
            if _version(old) == _version(package):
                replaced.append(Forced(package, "reinstall", old))
            elif is_newer(old, package):
                replaced.append(Forced(package, "downgrade", old))
    return tuple(replaced)


def obsolete_one_another(rpms: Sequence[RpmFile]) -> bool:
    """Whether a package names another of ``rpms`` as obsolete: dnf would then drop that one silently."""
    if len(rpms) < 2:
        return False
    query = run(
        ["rpm", "-qp", "--nosignature", "--nodigest", "--qf", "[%{OBSOLETENAME}\\n]", *(rpm.path for rpm in rpms)],
        timeout=60,
        split_errors=True,
        error=InfrastructureError,
    )
    return not {rpm.nevra.name for rpm in rpms}.isdisjoint(query.output.split())


def _replaces(package: Nevra, old: Nevra) -> bool:
    """Whether they exclude each other: another architecture may stand beside it, unless one of the two is noarch."""
    return package.arch == old.arch or "noarch" in (package.arch, old.arch)


def _version(package: Nevra) -> str:
    return f"{package.epoch}:{package.version}-{package.release}"


def is_newer(package: Nevra, other: Nevra) -> bool:
    """Whether rpm takes ``package`` for the later build. Raises ConfigurationError for what cannot be a version."""
    versions = [_version(package), _version(other)]
    if any(set(text) & set('"\\%{}') for text in versions):
        raise ConfigurationError(f"no version of a package: {' or '.join(versions)}")
    question = f'%{{lua:print(rpm.vercmp("{versions[0]}", "{versions[1]}"))}}'
    return run(["rpm", "--eval", question], timeout=10, error=InfrastructureError).output.strip() == "1"
