"""Opening a store of base images with all that it needs, and the definitions that it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distgate import locks
from distgate.base_images.build import BuildTools
from distgate.base_images.definition import BaseDefinition
from distgate.base_images.site import ImageStoreFields
from distgate.base_images.store import BaseStore
from distgate.errors import ConfigurationError
from distgate.guests.base import GuestHost
from distgate.kickstart.base import ImageBuilder
from distgate.kickstart.definition import Kind, definition_for, flatten
from distgate.kickstart.edit import with_root_key
from distgate.mounts.partitions import root_offset
from distgate.pipelines import koji_target
from distgate.process import run
from distgate.rpm.nevra import Nevra


def open_store(
    fields: ImageStoreFields,
    *,
    builder: ImageBuilder,
    guests: GuestHost,
    build_timeout: float = 7200.0,
    owner: str = "distgate",
) -> BaseStore:
    """The store that a site's fields describe, with all that builds and qualifies; times are in seconds."""
    tools = BuildTools(
        builder=builder,
        guests=guests,
        root_offset=root_offset,
        installed=_installed,
        ssh_key=key_of(fields),
        build_timeout=build_timeout,
        boot_timeout=fields.boot_timeout,
    )
    return BaseStore(fields.directory, fields.most_bytes, tools, fields.max_age, owner)


def key_of(fields: ImageStoreFields) -> Path:
    """The private ssh key that opens the bases of a store; made in the store unless the site names another."""
    return Path(fields.key) if fields.key else ensure_key(fields.directory)


def ensure_key(root: Path) -> Path:
    """The private ssh key of the store in ``root``, made on demand; the public one is beside it."""
    key = root.absolute() / "ssh" / "id_ed25519"
    with locks.exclusive(root / "locks" / "ssh.lock", "key", "the store's ssh key", 60, lambda _holder: None):
        if not key.exists():
            key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "distgate-images", "-f", key], timeout=60)
    return key


def definition_of(
    branch: str, key: Path, kickstarts: Mapping[str, str | Path], kind: Kind = "cloud"
) -> BaseDefinition:
    """What the base of a branch is made from; ``key`` is let in as root.

    The kickstart is that of ``kickstarts`` (by branch, * for all others) or our own. Raises ConfigurationError when
    there is none for the branch, or the key has no public half beside it.
    """
    named = kickstarts.get(branch) or kickstarts.get("*")
    if named and not Path(named).is_file():
        raise ConfigurationError(f"there is no kickstart {named}", hint=f"is the path for branch {branch} right?")
    text = flatten(Path(named) if named else definition_for(branch, kind))
    release = koji_target(branch).removeprefix("f")
    return BaseDefinition(branch, release, with_root_key(text, _public(key)), kind)


def _installed(image: Path, offset: int) -> tuple[Nevra, ...]:
    # Here, because most who open a store build nothing, and this brings the whole machinery of composes along.
    from distgate.images.contents import installed_in

    return installed_in(image, offset)


def _public(key: Path) -> str:
    try:
        return key.with_name(f"{key.name}.pub").read_text()
    except OSError as error:
        raise ConfigurationError(
            f"the ssh key {key} has no public half: {error.strerror}", hint=f"ssh-keygen -y -f {key} prints it"
        ) from error
