"""The image stages of Atomic Host: a bootable image of the composed tree, at an interval, and its smoke test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import get_run_logger, task

from blocks import ImageStore, OSTreeRepo
from distgate.ledger.runs import RunFacts
from distgate.ostree.base import ComposedTree
from distgate.pipelines import STAGES
from distgate.settings import settings
from tasks.run.guests import ReservedGuests
from tasks.run.job import Job
from tasks.run.live_logs import LiveLogs
from tasks.run.live_text import LiveLines
from tasks.run.slots import guest_slot
from tasks.run.stage import ledger, result_key, stage
from tasks.tree import trees_of

if TYPE_CHECKING:
    from distgate.atomic.images import TreeImage
    from distgate.atomic.smoke_test import TreeSmokeReport

IMAGE, SMOKE = STAGES["atomic"]["image"], STAGES["atomic"]["image.test.smoke"]
NOT_PASSED = "no image: the tree is withdrawn"
NOT_WANTED = "no image: the run was asked to make none"
NOT_DUE = "no new image: the last good one is younger than the interval"


def why_no_image(job: Job, status: str, requested: bool | None) -> str:
    """Why a run whose status is ``status`` makes no image of its tree; empty when it makes one.

    One is made of a tree that passed: as ``requested`` says, or when the last good one is older than the interval.
    """
    if status != "SUCCESS":
        return NOT_PASSED
    if requested is not None:
        return "" if requested else NOT_WANTED
    return "" if _last_is_old(job) else NOT_DUE


# Kept as the image is: a run that is retried after its own image became the latest would find that none is due, and
# leave out the stage that failed.
@task(name="Ask whether an image is due", persist_result=True, cache_key_fn=result_key(IMAGE.suffix))
def _last_is_old(job: Job) -> bool:
    due = OSTreeRepo.of(job.site).images(job.change.branch).due(settings().image_every)
    if not due:
        get_run_logger().info("%s: no new image: the last one is younger than the interval", job.change.title)
    return due


@stage(IMAGE)
def make_image(job: Job, tree: ComposedTree) -> TreeImage:
    """A bootable image of ``tree`` in the branch's directory of images; it is not the branch's latest yet."""
    repo, stage_dir, branch = OSTreeRepo.of(job.site), job.run_dir.stage(IMAGE.directory), job.change.branch
    with LiveLines(IMAGE.live, "How the image is made") as live:
        built = repo.maker(branch).make(
            trees_of(job).published,
            tree,
            repo.compose_url(branch),
            ImageStore.of(job.site).ssh_key(),
            stage_dir / repo.images(branch).name(tree),
            live,
        )
        live.end(built.built.steps)
    if built.kickstart:
        (stage_dir / "image.ks").write_text(built.kickstart)
    image = repo.images(branch).place(built.built.path, tree)
    ledger().record_facts(job.run_id, RunFacts(image_name=image.name, image_url=image.url))
    return image


@stage(SMOKE, slot=guest_slot)
def smoke_test_image(job: Job, tree: ComposedTree, image: TreeImage) -> TreeSmokeReport:
    """Boot the image and find exactly ``tree`` in it; then it is the branch's latest one."""
    from distgate.atomic.image_methods import reference_image
    from distgate.atomic.smoke_test import TreeSmoke

    repo, branch, stage_dir = OSTreeRepo.of(job.site), job.change.branch, job.run_dir.stage(SMOKE.directory)
    images, key = repo.images(branch), ImageStore.of(job.site).ssh_key()
    smoke = TreeSmoke(ReservedGuests(job).host, settings().boot_timeout)
    control = reference_image(
        images,
        repo.disks(branch),
        repo.image_way,
        tree,
        trees_of(job).published,
        remote_url=repo.compose_url(branch),
        key=key,
        holder=job.holder,
    )
    live = LiveLogs(job, SMOKE.live, "How the image boots", stage_dir)
    with images.using(image) as path, control as good, live:
        report = smoke.test(path, tree, key, stage_dir, good=good)
        live.end(report.boot.lines() if report.boot else ())
        images.promote(image)
        images.prune()
    get_run_logger().info("%s: %s; it is the branch's latest", job.change.title, report.sentence)
    return report
