"""The smoke stage: the image boots, and holds exactly the packages under test."""

from __future__ import annotations

from prefect import get_run_logger

from distgate.capsule import SmokeRecord
from distgate.drivers.base import ComposedImage
from distgate.errors import PackageError
from distgate.settings import settings
from distgate.smoke import SmokeReport
from tasks.claim import Job
from tasks.images import base_under, store_of
from tasks.live_logs import LiveLogs
from tasks.reserve import ReservedGuests
from tasks.slots import guest_slot
from tasks.stage import stage


@stage("image.test.smoke", "Smoke test", store_of, guest_slot)
def smoke_test(job: Job, image: ComposedImage) -> SmokeReport:
    """Boot the image and compare what is installed with what was composed. PackageError when it does not hold."""
    from distgate.drivers.smoke_boot import SmokeBoot

    base = base_under(job, image)
    guests = ReservedGuests(job)
    boot = SmokeBoot(guests.host, settings().boot_timeout, failed=guests.keep)
    room = job.room.stage("smoke")
    try:
        with LiveLogs(job, "boot", "How the image boots", room) as live:
            report = boot.test(image, base, room)
            live.end(report.boot.lines() if report.boot else ())
    except PackageError as bad:
        job.capsule.note(smoke=SmokeRecord(passed=False, sentence=bad.message))
        raise
    job.capsule.note(smoke=SmokeRecord(passed=True, sentence=report.sentence))
    get_run_logger().info("%s: %s", job.change.title, report.sentence)
    return report
