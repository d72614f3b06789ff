"""What a base image is made from, and the identity that follows from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from distgate.drivers.base_store_snapshot import InstallSource, snapshot_of, sources_of
from distgate.kickstart import kickstart_hash


@dataclass(frozen=True)
class BaseDefinition:
    """The kickstart, flattened, of one kind of image (``name``: cloud, atomic) for one branch of release
    ``release`` ("rawhide", "44")."""

    branch: str
    release: str
    kickstart: str
    name: str = "cloud"

    @property
    def kickstart_hash(self) -> str:
        """The SHA-256 of the kickstart."""
        return kickstart_hash(self.kickstart)

    @property
    def sources(self) -> tuple[InstallSource, ...]:
        """What it is installed from. ConfigurationError when that cannot be told."""
        return sources_of(self.kickstart, self.release)

    def snapshot(self) -> str:
        """The checksum over what its repositories hold now. InfrastructureError when one is away."""
        return snapshot_of(self.sources)

    def identity(self, snapshot: str) -> str:
        """Sixteen hex digits for this definition and a state of its repositories."""
        parts = "\n".join((self.branch, self.kickstart_hash, snapshot))
        return hashlib.sha256(parts.encode()).hexdigest()[:16]
