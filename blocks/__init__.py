"""Places and credentials as Prefect blocks. To import all of this package registers every block type.

Each is imported when it is asked for: a run needs some of them only, and each costs it milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blocks.artifact_store import ArtifactStore
    from blocks.dist_git import DistGit
    from blocks.guest_machine import GuestMachine
    from blocks.host_tests import HostTests
    from blocks.image_factory import ImageFactory
    from blocks.image_store import ImageStore
    from blocks.koji_instance import KojiInstance
    from blocks.ostree_repo import OSTreeRepo

_MODULES = {
    "ArtifactStore": "artifact_store",
    "DistGit": "dist_git",
    "GuestMachine": "guest_machine",
    "HostTests": "host_tests",
    "ImageFactory": "image_factory",
    "ImageStore": "image_store",
    "KojiInstance": "koji_instance",
    "OSTreeRepo": "ostree_repo",
}
__all__ = [
    "ArtifactStore",
    "DistGit",
    "GuestMachine",
    "HostTests",
    "ImageFactory",
    "ImageStore",
    "KojiInstance",
    "OSTreeRepo",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    # `prefect block register --module blocks` reads this list.
    return sorted({*globals(), *__all__})
