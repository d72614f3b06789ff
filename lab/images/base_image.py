"""The lab's base image: what kickstarts/lab-cloud.ks says, from the lab's repository, in a store like any site's."""

from __future__ import annotations

import inspect
from pathlib import Path

import kickstarts
from distgate.base_images.definition import BaseDefinition
from distgate.base_images.open import definition_of, open_store
from distgate.base_images.site import ImageStoreFields
from distgate.base_images.store import BaseStore
from distgate.files import write_whole
from distgate.guests.host import LibvirtGuests
from distgate.images.base import BaseImage
from distgate.kickstart import definition as reader
from distgate.kickstart.definition import read_kickstart
from distgate.kickstart.imagefactory import ImageFactory
from distgate.mounts import root
from distgate.process import run
from distgate.rpm import dnf, transaction, transaction_child
from distgate.sandbox import bubblewrap_rpm
from distgate.steps import Progress
from lab.distribution.cache import exclusive, identity_of
from lab.distribution.rpm_repository import Repository, ensure_repository
from lab.images import disk, kickstart_install
from lab.images.imagefactory import COMMAND, INSTALL_URL, RESOURCES

KICKSTART = Path(kickstarts.__path__[0]) / "lab-cloud.ks"
#: Seconds that a base may take to be built.
TIMEOUT = 1200.0
#: What the lab's base images may take of the disk; one takes a third of a gigabyte.
LIMIT = "5G"
#: The branch whose base is made ahead, for the demo, tests and benchmarks; others are made when they are asked for.
BRANCH = "f41"
#: What stands in the kickstart for the lab's repository, whose place no file can know.
PLACEHOLDER = "http://lab.invalid/repository"


def ensure_base(cache: Path, progress: Progress, kickstart: Path = KICKSTART, branch: str = BRANCH) -> BaseImage:
    """The base image, made and qualified in the store below ``cache`` on the first call (a minute beyond
    ensure_repository, as root).

    Later calls return at once until the kickstart, the repository or the code changes. Raises
    ConfigurationError for a kickstart that cannot be followed, InfrastructureError when a step fails.
    """
    cache = cache.resolve()
    return lab_store(cache).base(lab_definition(cache, progress, kickstart, branch), progress)


def lab_definition(
    cache: Path, progress: Progress, kickstart: Path = KICKSTART, branch: str = BRANCH
) -> BaseDefinition:
    """What the lab's base image of a branch is made from; raises as ``ensure_base``."""
    cache = cache.resolve()
    written = write_kickstart(cache, ensure_repository(cache, progress), kickstart)
    return definition_of(branch, ensure_key(cache), {"*": written})


def lab_builder() -> ImageFactory:
    """The lab's imagefactory, called as any other."""
    return ImageFactory(command=COMMAND, install_url=INSTALL_URL, resources=RESOURCES)


def lab_store(cache: Path) -> BaseStore:
    """The store of the lab's base images; it builds with the lab's imagefactory."""
    return open_store(
        ImageStoreFields(root=str(store_root(cache)), limit=LIMIT, key=str(ensure_key(cache))),
        builder=lab_builder(),
        guests=LibvirtGuests(store_root(cache) / "guests"),
        build_timeout=TIMEOUT,
    )


def store_root(cache: Path) -> Path:
    """Where the store of the lab's base images is."""
    return cache / "images"


def write_kickstart(cache: Path, repository: Repository, kickstart: Path = KICKSTART) -> Path:
    """The file of ``kickstart`` as it stands for the lab at hand: with its repository, and a mark that changes with
    the code that follows it. Raises ConfigurationError when the lab cannot follow it."""
    kickstart_install.refuse_what_cannot_be_followed(read_kickstart(kickstart), kickstart.name)
    text = lab_kickstart(kickstart, repository)
    written = cache / "kickstarts" / f"{kickstart.stem}-{identity_of(text)}.ks"
    if not written.exists():
        written.parent.mkdir(exist_ok=True)
        with exclusive(cache / "kickstarts.lock"):
            write_whole(written, text)
    return written


def lab_kickstart(kickstart: Path, repository: Repository) -> str:
    """The text of what ``write_kickstart`` writes."""
    modules = (disk, kickstart_install, reader, transaction, transaction_child, dnf, bubblewrap_rpm, root)
    code = identity_of(repository.identity, *(inspect.getsource(module) for module in modules))
    text = kickstart.read_text(encoding="utf-8").replace(PLACEHOLDER, repository.url)
    return f"# Followed by code and packages {code}\n{text}"


def key_of(cache: Path) -> Path:
    """Where the key of ``ensure_key`` is."""
    return cache / "ssh" / "id_ed25519"


def ensure_key(cache: Path) -> Path:
    """The private key that opens every guest of the lab (mode 0600, the public one beside it), made on demand."""
    key = key_of(cache)
    with exclusive(cache / "ssh.lock"):
        if not key.exists():
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "distgate-lab", "-f", key], timeout=60)
    return key
