"""The smoke stage: the image boots, and holds exactly the packages under test."""

from __future__ import annotations

from prefect import get_run_logger

from distgate.errors import PackageError
from distgate.images.base import ComposedImage
from distgate.images.smoke import SmokeReport
from distgate.pipelines import STAGES
from distgate.runs.record import SmokeRecord
from distgate.settings import settings
from tasks.run.base_images import base_of_image, image_store_id
from tasks.run.guests import ReservedGuests
from tasks.run.job import Job
from tasks.run.live_logs import LiveLogs
from tasks.run.slots import guest_slot
from tasks.run.stage import stage

STAGE = STAGES["allpackages"]["image.test.smoke"]


@stage(STAGE, image_store_id, guest_slot)
def smoke_test(job: Job, image: ComposedImage) -> SmokeReport:
    """Boot the image and compare what is installed with what was composed. PackageError when it does not hold."""
    from distgate.images.smoke import SmokeBoot

    base = base_of_image(job, image)
    guests = ReservedGuests(job)
    boot = SmokeBoot(guests.host, settings().boot_timeout, failed=guests.keep)
    stage_dir = job.run_dir.stage(STAGE.directory)
    try:
        with LiveLogs(job, STAGE.live, "How the image boots", stage_dir) as live:
            report = boot.test(image, base, stage_dir)
            live.end(report.boot.lines() if report.boot else ())
    except PackageError as error:
        job.record.update(smoke=SmokeRecord(passed=False, sentence=error.message))
        raise
    job.record.update(smoke=SmokeRecord(passed=True, sentence=report.sentence))
    get_run_logger().info("%s: %s", job.change.title, report.sentence)
    return report
