"""The image stage: a bootable qcow2 with exactly the built packages."""

from __future__ import annotations

import json
from pathlib import Path

from prefect import get_run_logger

from blocks import ImageStore
from distgate.drivers.base import ComposedImage
from distgate.drivers.capsule_records import compose_begun, compose_record
from tasks.build import BuiltPackage
from tasks.claim import Job
from tasks.stage import stage


@stage("image", "Compose image")
def compose_image(job: Job, built: BuiltPackage) -> ComposedImage:
    """Install the packages under test into an overlay on the branch's base image."""
    room = job.room.stage("image")
    store = ImageStore.of(job.site)
    base = store.base(job.change.branch)
    job.capsule.note(compose=compose_begun(base))
    image = store.composer().compose(base, built.repository, built.packages, room / f"{built.nvr}.qcow2")
    _write_record(image, room)
    job.capsule.note(compose=compose_record(image, base, job.room.root))
    get_run_logger().info(
        "%s: %s holds %d packages, %.1f MB over base %s",
        job.change.title,
        image.path.name,
        len(image.installed),
        image.size / 1e6,
        image.base[:12],
    )
    return image


def _write_record(image: ComposedImage, room: Path) -> None:
    record = {
        "image": image.path.name,
        "base": image.base,
        "backing": str(image.backing) if image.backing else None,
        "size": image.size,
        "requested": [str(nevra) for nevra in image.requested],
        "installed": [str(nevra) for nevra in image.installed],
    }
    (room / "image.json").write_text(json.dumps(record, indent=1) + "\n")
    (room / "transaction.log").write_text(image.transaction)
