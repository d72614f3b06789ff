"""The lab's installer of an OSTree: the commit that a kickstart's ostreesetup names, deployed without a guest."""

from __future__ import annotations

from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.kickstart.definition import Kickstart, OstreeSource
from distgate.process import ProcessFailed, run
from distgate.rpm.transaction import Script
from distgate.steps import Progress
from lab.distribution.rpm_repository import step
from lab.images.deployed_disk import lab_deployer


def install_tree(definition: Kickstart, source: OstreeSource, disk: Path, scratch: Path, progress: Progress) -> str:
    """Write the raw bootable ``disk`` that ``definition`` asks for; the commit that was deployed.

    Needs root, and space in ``scratch`` for the disk. Raises PackageError when no host can be made of the commit,
    InfrastructureError otherwise, ConfigurationError for what a real installer does and the lab cannot.
    """
    if definition.requests:
        raise ConfigurationError("an OSTree brings its packages: ostreesetup and %packages exclude each other")
    with step(progress, f"a copy of {source.ref} of {source.url}"):
        repository, rev = _fetch(source, scratch)
    keys = scratch / "root"
    keys.with_name("root.pub").write_text("".join(f"{key}\n" for key in definition.root_keys))
    deployer = lab_deployer(
        kargs=tuple(definition.boot_arguments.split()),
        size=definition.root_size or 0,
        osname=source.osname,
        remote=source.remote,
        scripts=tuple(
            Script(f"post-line-{section.line}", section.body, section.interpreter, section.fatal)
            for section in definition.post
        ),
    )
    with step(progress, "a deployed disk"):
        image = scratch / "deployed.qcow2"
        deployer.deploy(repository, rev, source.ref, image, remote_url=source.url, key=keys)
        run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, disk], timeout=600)
    return rev


def _fetch(source: OstreeSource, scratch: Path) -> tuple[Path, str]:
    repository = scratch / "fetched"
    ostree = ["ostree", f"--repo={repository}"]
    run([*ostree, "init", "--mode=archive"], timeout=60)
    run([*ostree, "remote", "add", "--no-gpg-verify", "source", source.url], timeout=60)
    try:
        run([*ostree, "pull", "source", source.ref], timeout=1200)
    except ProcessFailed as error:
        raise InfrastructureError(f"{source.url} does not give {source.ref}", evidence=error.evidence) from error
    return repository, run([*ostree, "rev-parse", f"source:{source.ref}"], timeout=60).output.strip()
