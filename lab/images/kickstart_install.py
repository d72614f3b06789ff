"""The lab's installer: a kickstart becomes a bootable disk by one dnf transaction, without a guest."""

from __future__ import annotations

from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.kickstart.definition import Kickstart, PackageSource, PostScript
from distgate.rpm.transaction import Outcome, RepositorySource, Script, Transaction, perform
from distgate.steps import Progress
from lab.distribution.rpm_repository import step
from lab.images.disk import Boot, DiskLayout, make_disk


def refuse_what_cannot_be_followed(definition: Kickstart, name: str) -> None:
    """Raise ConfigurationError, naming the kickstart ``name``, for what a real installer does and the lab cannot."""
    outside = [script.line for script in definition.post if not script.in_chroot]
    if outside:
        raise ConfigurationError(f"{name}, line {outside[0]}: the lab runs no %post --nochroot script")
    if definition.excluded_groups:
        raise ConfigurationError(f"{name}: the lab cannot exclude groups (-@{definition.excluded_groups[0]})")
    if definition.root_size is None:
        raise ConfigurationError(f"{name} has no 'part / --size', which says how large the root shall be")


def install(
    definition: Kickstart, release: str, disk: Path, scratch: Path, timeout: float, progress: Progress
) -> Outcome:
    """Write the raw bootable ``disk`` that ``definition`` asks for, and return what was installed.

    ``release`` is what ``$releasever`` means. Needs root, and space in ``scratch`` for the root file system twice;
    ``timeout`` is in seconds. Raises PackageError when the packages do not install, InfrastructureError otherwise.
    """
    refuse_what_cannot_be_followed(definition, "the kickstart")
    root = scratch / "root"
    root.mkdir(mode=0o755)
    with step(progress, "the root file system"):
        outcome = perform(_transaction(definition, root, release), scratch, timeout)
        _let_in(root, definition.root_keys)
        (root / "etc/hostname").write_text(f"{definition.hostname or 'localhost'}\n")
    with step(progress, "a bootable disk"):
        make_disk(root, _boot(root, definition.boot_arguments), _layout(definition), disk, scratch)
    return outcome


def _transaction(definition: Kickstart, root: Path, release: str) -> Transaction:
    return Transaction(
        repositories=tuple(_source(source) for source in definition.sources),
        requests=definition.requests,
        root=root,
        excluded=definition.excluded,
        weak_dependencies=definition.weak_dependencies,
        scripts=tuple(_script(script) for script in definition.post),
        release=release,
    )


def _source(source: PackageSource) -> RepositorySource:
    cost = 1000 if source.cost is None else source.cost
    return RepositorySource(
        source.name, source.baseurl, source.mirrorlist, source.metalink, cost=cost, excluded=source.excluded
    )


def _script(script: PostScript) -> Script:
    return Script(f"post-line-{script.line}", script.body, script.interpreter, script.fatal)


def _let_in(root: Path, keys: tuple[str, ...]) -> None:
    directory = root / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    authorized = directory / "authorized_keys"
    authorized.write_text("".join(f"{key}\n" for key in keys))
    authorized.chmod(0o600)


def _boot(root: Path, arguments: str) -> Boot:
    kernels = sorted((root / "usr/lib/modules").glob("*/vmlinuz"))
    if len(kernels) != 1:
        raise InfrastructureError(f"the composed root has {len(kernels)} kernels", hint="@core holds kernel-core")
    return Boot(kernels[0], kernels[0].with_name("initramfs.img"), arguments)


def _layout(definition: Kickstart) -> DiskLayout:
    return DiskLayout(definition.root_size or 0)
