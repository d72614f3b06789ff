"""The steps of a longer piece of work and what each of them took: shown while it goes on, kept in its record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

#: Receives one line for the person who watches; it must not raise.
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One step that has ended, and its duration in seconds."""

    name: str
    seconds: float


class Steps:
    """Times steps one after another and calls ``progress`` for each as it begins and ends."""

    def __init__(self, progress: Progress = lambda _line: None) -> None:
        self._progress = progress
        self._taken: list[Step] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time what happens inside; a step that fails is kept too, since it took its time."""
        self._progress(f"{name} ...")
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        """Keep a step that was timed elsewhere, such as in a child process."""
        self._taken.append(Step(name, seconds))
        self._progress(f"{name}: {seconds:.1f} s")

    @property
    def taken(self) -> tuple[Step, ...]:
        return tuple(self._taken)


def share_lines(steps: Sequence[Step]) -> list[str]:
    """A line per step with its seconds and its share of the whole in percent."""
    whole = sum(step.seconds for step in steps) or 1.0
    width = max((len(step.name) for step in steps), default=0)
    return [f"{step.name:<{width}} {step.seconds:7.1f} s {100 * step.seconds / whole:3.0f} %" for step in steps]


def share_sentence(steps: Sequence[Step], most: int = 4) -> str:
    """The whole in seconds and its ``most`` longest steps with their shares, on one line."""
    whole = sum(step.seconds for step in steps)
    longest = sorted(steps, key=lambda step: -step.seconds)[:most]
    parts = ", ".join(f"{step.name} {100 * step.seconds / (whole or 1.0):.0f} %" for step in longest)
    return f"{whole:.1f} s: {parts}"
