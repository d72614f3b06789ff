"""Where runs leave their artifacts for others, and for the next worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from prefect.types import SecretDict
from pydantic import Field

from blocks.site import SiteBlock

if TYPE_CHECKING:
    from distgate.runs.artifact_store import ArtifactStore as Store


class ArtifactStore(SiteBlock):
    """A place that every worker copies the artifacts of its runs to, stage by stage.

    A site without a document of this block keeps them in DISTGATE_ARTIFACTS_DIR alone.
    """

    _block_type_name: ClassVar[str | None] = "Artifact store"
    _block_type_slug: ClassVar[str | None] = "artifact-store"
    _description: ClassVar[str | None] = "Where logs, packages and images of runs are kept for people and workers."

    url: str = Field(
        description="Directory, or URL of any file system that fsspec knows: s3://bucket/distgate. "
        "DISTGATE_ARTIFACTS_URL is where it is served to people"
    )
    options: SecretDict = Field(
        SecretDict({}), description="What the file system is opened with, such as key, secret and endpoint_url of S3"
    )

    def store(self) -> Store:
        """The store. ConfigurationError for a URL that no file system here understands."""
        from distgate.runs.artifact_store import ArtifactStore as Store

        return Store(self.url, self.options.get_secret_value())
