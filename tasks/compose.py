"""The image stage: a bootable qcow2 with exactly the built packages."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from prefect import get_run_logger

from blocks import ImageStore
from distgate.images.base import BaseImage, ComposedImage, ImageComposer
from distgate.images.method import ComposeMethod, compose_method_for
from distgate.pipelines import STAGES
from distgate.settings import settings
from distgate.steps import Progress
from tasks.build import BuiltPackage
from tasks.run.base_images import base_of, image_store_id
from tasks.run.job import Job
from tasks.run.live_text import LiveLines
from tasks.run.stage import stage

STAGE = STAGES["allpackages"]["image"]


@stage(STAGE, image_store_id)
def compose_image(job: Job, built: BuiltPackage) -> ComposedImage:
    """Put the packages under test onto the branch's base image, or install an image with them anew."""
    return composed(job, built)


def composed(job: Job, built: BuiltPackage) -> ComposedImage:
    """The image of ``compose_image``, for a stage of another name."""
    with LiveLines(STAGE.live, "How the image is made") as live:
        image = _made(job, built, live)
        live.end(image.steps)
    get_run_logger().info(
        "%s: %s holds %d packages, %.1f MB over base %s",
        job.change.title,
        image.path.name,
        len(image.installed),
        image.size / 1e6,
        image.base[:12],
    )
    return image


def _made(job: Job, built: BuiltPackage, progress: Progress) -> ComposedImage:
    from distgate.kickstart.text import kickstart_hash
    from distgate.runs.recording import compose_begun

    stage_dir, base = job.run_dir.stage(STAGE.directory), base_of(job, progress)
    job.record.update(compose=compose_begun(base))
    kickstart = _kickstart(job, built, stage_dir)
    method = compose_method_for(
        built.source_name, [package.name for package in built.packages], settings().compose_way
    )
    get_run_logger().info("%s: image: %s. %s", job.change.title, method.name, method.reason)
    composed = _composer(job, built, method).compose(
        base, built.repository, built.packages, stage_dir / f"{built.nvr}.qcow2", progress
    )
    image = replace(composed, reason=method.reason, kickstart_hash=kickstart_hash(kickstart))
    _write_record(job, image, base, stage_dir)
    return image


def _composer(job: Job, built: BuiltPackage, method: ComposeMethod) -> ImageComposer:
    store = ImageStore.of(job.site)
    if method.name == "layered":
        return store.composer()
    return store.installer(job.change.branch, _served(job, built))


def _served(job: Job, built: BuiltPackage) -> str:
    """Where an installer finds the built packages: where artifacts are served, else in a directory of this host."""
    over_http = job.run_dir.base_url.startswith(("http://", "https://"))
    return job.run_dir.url(built.repository) if over_http else built.repository.as_uri()


def _kickstart(job: Job, built: BuiltPackage, stage_dir: Path) -> str:
    """The definition of the image with the change, which the run keeps whichever way it is made."""
    text = ImageStore.of(job.site).kickstart(job.change.branch, _served(job, built), built.packages)
    (stage_dir / f"{built.nvr}.ks").write_text(text)
    return text


def _write_record(job: Job, image: ComposedImage, base: BaseImage, stage_dir: Path) -> None:
    from distgate.runs.recording import compose_record

    job.record.update(compose=compose_record(image, base, job.run_dir.root))
    record = asdict(image) | {
        "image": image.path.name,
        "requested": [str(nevra) for nevra in image.requested],
        "installed": [str(nevra) for nevra in image.installed],
        "omitted": [{"package": str(omission.package), "reason": omission.reason} for omission in image.omitted],
        "forced": [
            asdict(forced) | {"package": str(forced.package), "replaced": str(forced.replaced)}
            for forced in image.forced
        ],
    }
    del record["path"], record["transaction"]
    (stage_dir / "image.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
    (stage_dir / "transaction.log").write_text(image.transaction)
