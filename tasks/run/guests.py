"""Guests of a run that asked to keep one: the first that showed a failure stays up for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import get_run_logger

from blocks import GuestMachine
from distgate.errors import DistgateError
from distgate.guests.base import Guest, GuestHost
from distgate.testing.verdict import SuiteVerdict
from tasks.run.job import Job

if TYPE_CHECKING:
    from distgate.guests.monitor import HeldGuests


class ReservedGuests:
    """``host`` starts the guests of a stage; ``keep`` holds the first failing one of the run, if that was asked for.

    The holder enforces the deadline, and neither the run nor its messages wait for it.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        machine = GuestMachine.of(job.site)
        self._held: HeldGuests | None = machine.held(60.0 * job.reserve) if job.reserve > 0 else None
        self.host: GuestHost = self._held or machine.guests()

    def keep_failing(self, guest: Guest, verdict: SuiteVerdict, _last: bool) -> None:
        """``keep`` it if the suite that ran on it did not pass."""
        if verdict.verdict != "PASS":
            self.keep(guest, f"{verdict.suite}: {verdict.evidence}")

    def keep(self, guest: Guest, why: str) -> None:
        """Hold this guest, unless none is asked for or one is held already. What goes wrong is logged."""
        if self._held is None or self._job.record.read().held is not None:
            return
        try:
            record = self._held.keep(guest, why)
            self._job.record.update(held=record)
        except DistgateError as error:
            # The verdict stands, whether a guest could be kept or not.
            get_run_logger().warning("%s: guest %s could not be held: %s", self._job.change.title, guest.name, error)
            return
        get_run_logger().info("%s: held for %d minutes: %s", self._job.change.title, self._job.reserve, record.ssh)
