"""Places and credentials as Prefect blocks. Importing this package registers every block type."""

from blocks.artifact_store import ArtifactStore
from blocks.dist_git import DistGit
from blocks.guest_host import GuestMachine
from blocks.host_tests import HostTests
from blocks.image_factory import ImageFactory
from blocks.image_store import ImageStore
from blocks.koji_instance import KojiInstance
from blocks.ostree_repo import OSTreeRepo

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
