"""Text on the run's page that changes while a stage works: one artifact, updated in place."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger, runtime
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectException

from distgate.steps import Step, share_lines
from distgate.text import fenced


class LiveText:
    """A markdown artifact of the current task run, made when something is first shown. Any thread may show."""

    def __init__(self, key: str, description: str) -> None:
        # Read here: a thread beside the task has no context to read them from.
        self._log = get_run_logger()
        self._artifact = ArtifactCreate(
            type="markdown",
            key=key,
            description=description,
            flow_run_id=UUID(runtime.flow_run.id),
            task_run_id=UUID(runtime.task_run.id),
        )
        self._id: UUID | None = None

    def show(self, text: str) -> None:
        """Replace what the page shows; a server that cannot be reached costs the view, never the work."""
        try:
            self._show(fenced(text))
        except (httpx.HTTPError, PrefectException) as error:
            self._log.warning("the page's %s could not be updated: %s", self._artifact.key, error)

    def _show(self, markdown: str) -> None:
        with get_client(sync_client=True) as client:
            if self._id is None:
                self._id = client.create_artifact(self._artifact.model_copy(update={"data": markdown})).id
            else:
                client.update_artifact(self._id, ArtifactUpdate(data=markdown))


class LiveLines:
    """The last lines of progress of a piece of work; called with each. A stage is not slowed down by it:
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
