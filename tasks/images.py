"""What images of a run are made from: the branch's base, held for the run, and the kickstart with the packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from blocks import ImageStore
from distgate.drivers.base import BaseImage, ComposedImage, Progress
from tasks.claim import Job

_held: dict[str, ExitStack] = {}


@contextmanager
def bases_held(job: Job) -> Iterator[None]:
    """The bases that the run's stages ask for stay in the store until the block ends."""
    with ExitStack() as held:
        _held[job.run_id] = held
        try:
            yield
        finally:
            del _held[job.run_id]


def base_of(job: Job, progress: Progress = lambda _line: None) -> BaseImage:
    """The base image of the run's branch, held; built and qualified first when the store has none."""
    held = ImageStore.of(job.site).leased_base(job.change.branch, _holder(job), progress)
    return _held[job.run_id].enter_context(held)


def base_under(job: Job, image: ComposedImage) -> BaseImage:
    """The base image that ``image`` was composed with, held. Raises Gone when it was removed since."""
    held = ImageStore.of(job.site).lease(job.change.branch, image.base, _holder(job))
    return _held[job.run_id].enter_context(held)


def _holder(job: Job) -> str:
    return f"run {job.run_id}, {job.change.title}"
