"""The health of this host, checked in a process of its own: no check can hang or break the worker that asks."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from distgate.doctor.health import Health, health_file, health_of, needed_of, write_health
from distgate.doctor.report import Finding, Report
from distgate.errors import DistgateError
from distgate.process import run
from distgate.settings import Settings

#: Seconds for one check, and for a doctor that examines five heavy ones after one another.
CHECK_SECONDS, DOCTOR_SECONDS = 60.0, 400.0
_PASSED_ON = ("DISTGATE_", "PREFECT_")


def examine_here(config: Settings) -> Report:
    """What the doctor finds on this host, of the checks that its workers need (DISTGATE_WORKER_CHECKS).

    A doctor that gives no answer is a failed check, never an error.
    """
    argv = [sys.executable, "-m", "distgate.cli", "doctor", "--json", "--timeout", f"{CHECK_SECONDS:g}"]
    argv += [argument for name in config.worker_checks for argument in ("--check", name)]
    env = {name: value for name, value in os.environ.items() if name.startswith(_PASSED_ON)}
    try:
        output = run(argv, timeout=DOCTOR_SECONDS, env=env, allowed=(0, 1), split_errors=True).output
        findings = tuple(Finding(**check) for check in json.loads(output)["checks"])
    except (DistgateError, ValueError, KeyError, TypeError) as error:
        last = getattr(error, "evidence", "").strip().splitlines()[-1:]
        return Report((Finding("doctor", False, ": ".join([f"it gave no answer: {error}", *last])),))
    return needed_of(Report(findings), config.worker_checks)


def note_health(config: Settings, host: str, report: Report) -> Health:
    """Write down what a report means for the worker called ``host``, which takes runs by it or not."""
    health = health_of(report, time.time())
    write_health(file_of(config, host), health)
    return health


def file_of(config: Settings, host: str) -> Path:
    """Where the health of the worker called ``host`` stands."""
    return health_file(config.workers.resolve(), host)
