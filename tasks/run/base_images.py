"""What images of a run are made from: the branch's base, held for the run, and the kickstart with the packages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from blocks import ImageStore
from distgate.images.base import BaseImage, ComposedImage
from distgate.steps import Progress
from tasks.run.job import Job


@dataclass(frozen=True)
class _RunBases:
    """The base images of one run by identity, and the leases that keep them in the store."""

    leases: ExitStack
    bases: dict[str, BaseImage] = field(default_factory=dict)


_run_bases: dict[str, _RunBases] = {}


@contextmanager
def hold_base_images(job: Job) -> Iterator[None]:
    """The bases that the run's stages ask for stay in the store until the block ends."""
    with ExitStack() as leases:
        _run_bases[job.run_id] = _RunBases(leases)
        try:
            yield
        finally:
            del _run_bases[job.run_id]


def base_of(job: Job, progress: Progress = lambda _line: None) -> BaseImage:
    """The base image of the run's branch, held; built and qualified first when the store has none."""
    run_bases = _run_bases[job.run_id]
    leased = ImageStore.of(job.site).leased_base(job.change.branch, job.holder, progress)
    base = run_bases.leases.enter_context(leased)
    return run_bases.bases.setdefault(base.identity, base)


def image_store_id(job: Job) -> str:
    """The identity of the store that the run's bases are in: results are valid for that store alone."""
    return ImageStore.of(job.site).identity()


def base_of_image(job: Job, image: ComposedImage) -> BaseImage:
    """The base image that ``image`` was composed with, held. Raises Gone when it was removed since."""
    run_bases = _run_bases[job.run_id]
    if image.base not in run_bases.bases:  # a run that is resumed after its image was made
        lease = ImageStore.of(job.site).lease(job.change.branch, image.base, job.holder)
        run_bases.bases[image.base] = run_bases.leases.enter_context(lease)
    return run_bases.bases[image.base]
