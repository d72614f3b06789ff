"""The lab's base image: what kickstarts/lab-cloud.ks says, from the lab's repository, by imagefactory; made once."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict
from pathlib import Path

import kickstarts
from distgate import kickstart as reader
from distgate.drivers import confinement, image_root, transaction, transaction_child
from distgate.drivers.base import BaseImage, Progress
from distgate.drivers.image_factory import ImageFactory
from distgate.drivers.image_layout import root_offset
from distgate.errors import ConfigurationError
from distgate.kickstart import read_kickstart
from distgate.kickstart_edit import with_root_key
from distgate.process import run
from lab import disk, kickstart_install
from lab.cache import ensure_entry, exclusive, identity_of
from lab.image_factory import COMMAND, INSTALL_URL, RESOURCES
from lab.rpm_repository import Repository, ensure_repository

KICKSTART = Path(kickstarts.__path__[0]) / "lab-cloud.ks"
RECORD = "base.json"
TIMEOUT = 1200.0
#: The Debian release that the lab's packages come from, as ``$releasever``.
RELEASE = "12"
#: What stands in the kickstart for the lab's repository, whose place no file can know.
PLACEHOLDER = "http://lab.invalid/repository"


def ensure_base(cache: Path, progress: Progress, kickstart: Path = KICKSTART) -> BaseImage:
    """The base image, made in ``cache`` on the first call (half a minute beyond ensure_repository, as root).

    Later calls return at once until the kickstart, the repository or the code changes. Raises
    ConfigurationError for a kickstart that cannot be followed, InfrastructureError when a step fails.
    """
    cache = cache.resolve()
    kickstart_install.refuse_what_cannot_be_followed(read_kickstart(kickstart), kickstart.name)
    repository = ensure_repository(cache, progress)
    key = ensure_key(cache)
    text = lab_kickstart(kickstart, repository, key)
    modules = (disk, kickstart_install, reader, transaction, transaction_child, confinement, image_root)
    identity = identity_of(repository.identity, text, *(inspect.getsource(module) for module in modules))
    entry = cache / "base" / identity

    def make(into: Path) -> None:
        builder = ImageFactory(command=COMMAND, install_url=INSTALL_URL, resources=RESOURCES)
        built = builder.build(text, kickstart.stem, RELEASE, into / "base.qcow2", TIMEOUT, progress)
        base = BaseImage(
            path=entry / built.path.name,
            identity=f"{kickstart.stem}-{identity}",
            root_offset=root_offset(built.path),
            ssh_key=key,
            repositories=(str(repository.path),),
        )
        (into / RECORD).write_text(json.dumps(asdict(base), default=str, indent=2) + "\n")

    return read_record(ensure_entry(cache, "base", identity, make))


def lab_kickstart(kickstart: Path, repository: Repository, key: Path) -> str:
    """The text of ``kickstart`` for the lab at hand: its repository, and its ``key`` for root."""
    text = kickstart.read_text(encoding="utf-8").replace(PLACEHOLDER, repository.url)
    return with_root_key(text, key.with_suffix(".pub").read_text())


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
