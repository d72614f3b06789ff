"""Undoing in order what was mounted or started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from distgate.errors import DistgateError


@contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """Call ``undo`` afterwards; after a failure its own failure does not hide what failed first."""
    try:
        yield
    except BaseException:
        with suppress(DistgateError):
            undo()
        raise
    undo()
