"""The lab's base image: composed from the lab's repository as kickstarts/lab-cloud.ks says, bootable, made once."""

from __future__ import annotations

import inspect
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import kickstarts
from distgate import kickstart as reader
from distgate.drivers import confinement, image_root, transaction, transaction_child
from distgate.drivers.base import BaseImage, Progress
from distgate.drivers.transaction import RepositorySource, Script, Transaction, perform
from distgate.errors import ConfigurationError, InfrastructureError
from distgate.kickstart import Kickstart, PackageSource, PostScript, read_kickstart
from distgate.process import run
from lab import disk
from lab.cache import ensure_entry, exclusive, identity_of
from lab.disk import Boot, DiskLayout, make_disk
from lab.rpm_repository import Repository, ensure_repository, step

KICKSTART = Path(kickstarts.__path__[0]) / "lab-cloud.ks"
RECORD = "base.json"
TIMEOUT = 1200.0


def ensure_base(cache: Path, progress: Progress, kickstart: Path = KICKSTART) -> BaseImage:
    """The base image, made in ``cache`` on the first call (half a minute beyond ensure_repository, as root).

    Later calls return at once until the kickstart, the repository or the code changes. Raises
    ConfigurationError for a kickstart that cannot be followed, InfrastructureError when a step fails.
    """
    cache = cache.resolve()
    repository = ensure_repository(cache, progress)
    key = ensure_key(cache)
    text = kickstart.read_text(encoding="utf-8")
    modules = (disk, reader, transaction, transaction_child, confinement, image_root)
    code = (inspect.getsource(module) for module in modules)
    identity = identity_of(repository.identity, text, key.with_suffix(".pub").read_text(), *code)
    entry = cache / "base" / identity
    base = BaseImage(
        path=entry / "base.qcow2",
        identity=f"{kickstart.stem}-{identity}",
        root_offset=_layout(read_kickstart(kickstart), kickstart).root_offset,
        ssh_key=key,
        repositories=(str(repository.path),),
    )
    ensure_entry(cache, "base", identity, lambda into: _make(into, kickstart, repository, base, progress))
    return base


def ensure_key(cache: Path) -> Path:
    """The private key that opens every guest of the lab (mode 0600, the public one beside it), made on demand."""
    key = cache / "ssh" / "id_ed25519"
    with exclusive(cache / "ssh.lock"):
        if not key.exists():
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "distgate-lab", "-f", key], timeout=60)
    return key


def read_record(base: Path) -> BaseImage:
    """The BaseImage whose record lies beside ``base`` (the qcow2 file or its directory)."""
    record = (base if base.is_dir() else base.parent) / RECORD
    if not record.exists():
        raise ConfigurationError(f"there is no {RECORD} beside the base image", hint="./run lab up makes one")
    return BaseImage.from_record(json.loads(record.read_text()))


def _make(into: Path, kickstart: Path, repository: Repository, base: BaseImage, progress: Progress) -> None:
    definition = read_kickstart(kickstart)
    definition = definition.with_source(PackageSource("lab", repository.url))
    definition = definition.with_root_key(base.ssh_key.with_suffix(".pub").read_text())
    with tempfile.TemporaryDirectory(prefix=".compose-", dir=into) as name:
        scratch = Path(name)
        root = scratch / "root"
        root.mkdir(mode=0o755)
        with step(progress, f"the root file system of {kickstart.name}"):
            outcome = perform(_transaction(definition, root, kickstart), scratch, TIMEOUT)
            _let_in(root, definition.root_keys)
            (root / "etc/hostname").write_text(f"{definition.hostname or 'localhost'}\n")
        with step(progress, "a bootable disk"):
            boot = _boot(root, definition.boot_arguments)
            make_disk(root, boot, _layout(definition, kickstart), into / base.path.name, scratch)
    (into / "compose.log").write_text(outcome.transcript)
    (into / "packages.txt").write_text("".join(f"{package}\n" for package in outcome.installed))
    (into / RECORD).write_text(json.dumps(asdict(base), default=str, indent=2) + "\n")


def _transaction(definition: Kickstart, root: Path, kickstart: Path) -> Transaction:
    outside = [script.line for script in definition.post if not script.in_chroot]
    if outside:
        raise ConfigurationError(f"{kickstart.name}, line {outside[0]}: the lab runs no %post --nochroot script")
    if definition.excluded_groups:
        raise ConfigurationError(
            f"{kickstart.name}: the lab cannot exclude groups (-@{definition.excluded_groups[0]})"
        )
    return Transaction(
        repositories=tuple(_source(source) for source in definition.sources),
        requests=definition.requests,
        root=root,
        excluded=definition.excluded,
        weak_dependencies=definition.weak_dependencies,
        scripts=tuple(_script(script) for script in definition.post),
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


def _layout(definition: Kickstart, kickstart: Path) -> DiskLayout:
    if definition.root_size is None:
        raise ConfigurationError(f"{kickstart.name} has no 'part / --size', which says how large the root shall be")
    return DiskLayout(definition.root_size)
