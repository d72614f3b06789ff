"""Text on the run's page that changes while a stage works: one artifact, updated in place."""

from __future__ import annotations

from uuid import UUID

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate

from distgate.plain_text import fenced


class LiveText:
    """A markdown artifact of the current task run, made when something is first shown."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._id: UUID | None = None

    def show(self, text: str) -> None:
        """Replace what the page shows."""
        markdown = fenced(text)
        if self._id is None:
            made = create_markdown_artifact(markdown, key=self._key, description=self._description)
            assert isinstance(made, UUID)  # noqa: S101 - never a coroutine: tasks are synchronous
            self._id = made
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._id, ArtifactUpdate(data=markdown))
