"""The heartbeat of a run: it tells a run whose host died from one that takes long."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from distgate.settings import settings
from tasks.run.job import Job
from tasks.run.stage import ledger

log = logging.getLogger(__name__)


@contextmanager
def heartbeat(job: Job) -> Iterator[None]:
    """Beat in a thread while the run works; end the process when the reconciler has given the run up."""
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(job, done), name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _beat(job: Job, done: threading.Event) -> None:
    while not done.wait(settings().run_lease / 4):
        try:
            is_current = ledger().heartbeat(job.run_id, job.attempt)
        except Exception:
            # Any error: a thread that ends here would have a healthy run declared dead.
            log.exception("%s: the heartbeat could not be written", job.change.title)
            continue
        if not is_current:
            # Its last message has gone out: any further result would contradict it.
            log.error("%s: this run was given up because it was silent; it ends here", job.change.title)
            os.kill(os.getpid(), signal.SIGTERM)
            return
