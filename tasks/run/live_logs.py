"""The progress of a stage and the end of its log, on the run's page: one artifact, brought up to date every few
seconds by a thread beside the work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from threading import Event, Thread

from prefect import get_run_logger
from prefect.context import SyncClientContext

from distgate.testing.live_log import newest_log, tail_text
from tasks.run.job import Job
from tasks.run.live_text import LiveText


class LiveLogs:
    """Shows, for as long as its ``with`` block lasts, the last lines of progress, and the end of the log below
    ``directory`` that grows. Called with a line it logs that, too. Nothing is shown of work that is done before the
    first update, and no request is made for it. When the block ends the lines stay, or the log if there are none."""

    SHOWN = 40
    EVERY = 3.0
    PATIENCE = 10.0
    """Seconds that the end of a block waits for a last request that is under way."""

    def __init__(self, job: Job, key: str, description: str, directory: Path) -> None:
        self._title = job.change.title
        self._log = get_run_logger()  # here: work that goes on in threads of its own has no context to ask for it
        self._text = LiveText(key, description)
        self._directory = directory
        self._lines: deque[str] = deque(maxlen=self.SHOWN)
        self._shown = ""
        self._began = time.monotonic()
        self._over = Event()
        self._thread = Thread(target=self._watch, name=f"live {key}", daemon=True)

    def __call__(self, line: str) -> None:
        """Take one more line, for the log and the page."""
        self._log.info("%s: %s", self._title, line)
        self._lines.append(line)

    def end(self, lines: Iterable[str]) -> None:
        """What the page shows when the block ends, in place of the lines so far."""
        self._lines.clear()
        self._lines.extend(lines)

    def __enter__(self) -> LiveLogs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(self.PATIENCE)
        if self._shown:
            self._show("\n".join(self._lines))

    def _watch(self) -> None:
        if self._over.wait(self.EVERY):
            return
        # A client of this thread: the one of the task counts its users without a lock, and closes when it miscounts.
        with SyncClientContext():
            self._update()
            while not self._over.wait(self.EVERY):
                self._update()

    def _update(self) -> None:
        log, lasts = newest_log(self._directory), f"... at work for {time.monotonic() - self._began:.0f} s"
        tail = tail_text(log, self._directory) if log else ""
        self._show("\n\n".join(part for part in ("\n".join([*self._lines, lasts]), tail) if part))

    def _show(self, text: str) -> None:
        if text and text != self._shown:
            self._shown = text
            self._text.show(text)
