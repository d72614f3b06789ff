"""Text on the run's page that changes while a stage works: one artifact, updated in place."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.exceptions import PrefectException

from distgate.steps import Step, share_lines
from distgate.text import fenced


class LiveText:
    """A markdown artifact of the current task run, made when something is first shown."""

    def __init__(self, key: str, description: str) -> None:
        self._key = key
        self._description = description
        self._id: UUID | None = None

    def show(self, text: str) -> None:
        """Replace what the page shows; a server that is away costs the view, never the work."""
        try:
            self._show(fenced(text))
        except (httpx.HTTPError, PrefectException) as error:
            get_run_logger().warning("the page's %s could not be updated: %s", self._key, error)

    def _show(self, markdown: str) -> None:
        if self._id is None:
            artifact_id = create_markdown_artifact(markdown, key=self._key, description=self._description)
            assert isinstance(artifact_id, UUID)  # noqa: S101 - never a coroutine: tasks are synchronous
            self._id = artifact_id
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._id, ArtifactUpdate(data=markdown))


class LiveLines:
    """The last lines that a piece of work says about itself; called with each. A stage is not slowed down by it:
    the page is brought up to date once a second at most. At the end of a ``with`` block that failed it shows the
    last of them."""

    SHOWN = 40
    EVERY = 1.0

    def __init__(self, key: str, description: str) -> None:
        self._text = LiveText(key, description)
        self._lines: deque[str] = deque(maxlen=self.SHOWN)
        self._shown_at = time.monotonic()

    def __enter__(self) -> LiveLines:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception) and self._lines:
            self._show()

    def __call__(self, line: str) -> None:
        """Take one more line."""
        get_run_logger().debug("%s", line)
        self._lines.append(line)
        if time.monotonic() - self._shown_at >= self.EVERY:
            self._show()

    def end(self, steps: Sequence[Step]) -> None:
        """Show what every step took, and its share of the whole."""
        self._text.show("\n".join(share_lines(steps)))

    def _show(self) -> None:
        self._text.show("\n".join(self._lines))
        self._shown_at = time.monotonic()
