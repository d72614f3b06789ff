"""Waiting for named conditions with a deadline, never for seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from distgate.errors import TimedOut

T = TypeVar("T")


class Deadline:
    """A point in time that several waits can share. ``remaining()`` is in seconds and never negative."""

    def __init__(self, seconds: float) -> None:
        self.reset(seconds)

    def reset(self, seconds: float) -> None:
        """Move it to ``seconds`` from now for everybody who waits; 0 makes them give up at once."""
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def remaining(self) -> float:
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining() <= 0


def wait_for(
    condition: str,
    probe: Callable[[], T | None],
    deadline: Deadline | float,
    *,
    evidence: Callable[[], str] = lambda: "",
    hint: str = "",
    interval: float = 0.2,
) -> T:
    """Return the first value of ``probe`` that is neither None nor False.

    ``deadline`` is a Deadline or seconds from now. Raises TimedOut, whose text names the condition and whose
    evidence is what ``evidence`` last saw (a console tail, a task state). Errors of ``probe`` pass through.
    """
    end = deadline if isinstance(deadline, Deadline) else Deadline(deadline)
    while True:
        value = probe()
        if value is not None and value is not False:
            return value
        if end.passed:
            raise TimedOut(f"gave up after {end.seconds:g} s waiting for {condition}", hint=hint, evidence=evidence())
        time.sleep(min(interval, end.remaining()))
