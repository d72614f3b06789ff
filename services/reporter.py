"""The reporter: reports runs to its channels, from the ledger's messages, each channel in a thread of its own.

One process per ledger: a second one waits for its end. What was delivered is written down after the other side took
it; a reporter that dies in between delivers it again, and each channel has a way to recognise that. A channel that
cannot be reached holds up no other, and of its own reports those of one run keep their order.
"""

from __future__ import annotations

import logging
import sys
import threading

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.ledger.leader import LeaderLock, open_leader_lock
from distgate.ledger.ledger import Ledger
from distgate.reports.channel import ReportChannel, check_names, open_channel
from distgate.reports.notice import Refused
from distgate.reports.outbox import Due, ReportOutbox
from distgate.settings import Settings, settings
from services.leadership import wait_for_leadership
from services.service import serve

log = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
#: Pauses of a channel after failures in a row, in seconds; the last one goes on.
PAUSES = (1, 2, 5, 15, 30)
#: Seconds for a call that is under way when the service ends; whatever it does then, it is repeated.
LAST_SECONDS = 5.0


class ChannelReporter:
    """Reports to one channel while this process holds the lock, until ``stopping`` is set."""

    def __init__(
        self, name: str, ledger: Ledger, settings: Settings, lock: LeaderLock, stopping: threading.Event
    ) -> None:
        self._name: str = name
        self._ledger, self._settings, self._stopping = ledger, settings, stopping
        self._lock = lock
        self._outbox: ReportOutbox | None = None
        self._channel: ReportChannel | None = None
        self._failures = 0

    def run(self) -> None:
        """Deliver what is due, again and again; only ``stopping`` ends it."""
        while wait_for_leadership(self._lock, self._stopping):
            try:
                busy = self._round()
            except DistgateError as error:
                log.error("reports to %s wait: %s", self._name, error)
                busy = None
            except Exception:  # the ladder's last rung: this thread is all that this channel has
                log.exception("reports to %s failed on an unexpected error", self._name)
                busy = None
            if busy is None:
                self._stopping.wait(PAUSES[min(self._failures, len(PAUSES) - 1)])
                self._failures += 1
            else:
                self._failures = 0
                self._stopping.wait(0 if busy else IDLE_SECONDS)

    def _round(self) -> bool | None:
        """Try what is due; whether there was anything, and None when nothing can be delivered for now."""
        outbox = self._outbox = self._outbox or ReportOutbox(self._ledger, self._name, self._settings.artifacts_dir)
        work = outbox.due()
        if not work:
            outbox.tidy()
        for due in work:
            if self._stopping.is_set():
                return False
            if not self._deliver(outbox, due):
                return None
        return bool(work)

    def _deliver(self, outbox: ReportOutbox, due: Due) -> bool:
        """Deliver one report, or record why not; False when the others need not be tried either."""
        outbox.trying(due)
        try:
            notice = outbox.notice(due)
            self._channel = self._channel or open_channel(self._name, self._settings)
            delivered = notice is not None and self._channel.deliver(notice)
        except Refused as error:
            log.error("%s refused %s of %s: %s", self._name, due.message.topic, due.run_id, error)
            outbox.refused(due, error.message)
        except (InfrastructureError, ConfigurationError) as error:
            outbox.failed(due, str(error))
            log.warning("reports to %s wait, first that of %s: %s", self._name, due.message.topic, error)
            # The secret may have been renewed, and is read when a channel is opened.
            self._channel = None if isinstance(error, ConfigurationError) else self._channel
            return False
        except Exception as error:
            # This message may be the reason: its run waits, the others go on.
            log.exception("%s of %s cannot be reported to %s", due.message.topic, due.run_id, self._name)
            outbox.failed(due, f"a bug of distgate: {error!r}")
        else:
            outbox.done(due, delivered=delivered)
            if delivered:
                log.info("%s was told of %s of %s", self._name, due.message.topic, due.run_id)
        return True


def main(stopping: threading.Event) -> None:
    config = settings()
    check_names(config.reports)
    if not config.reports:
        log.info("runs are announced on the bus alone: DISTGATE_REPORTS is empty")
    ledger = Ledger(config.ledger_url)
    lock = open_leader_lock(config.ledger_url, "reporter")
    reporters = [ChannelReporter(name, ledger, config, lock, stopping) for name in dict.fromkeys(config.reports)]
    threads = [threading.Thread(target=reporter.run, daemon=True) for reporter in reporters]
    for thread in threads:
        thread.start()
    stopping.wait()
    for thread in threads:
        thread.join(LAST_SECONDS)


if __name__ == "__main__":
    sys.exit(serve("reporter", main))
