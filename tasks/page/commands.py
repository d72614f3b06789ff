"""The commands that the summary of a run offers: enter the guest that is held, reproduce the run, test again."""

from __future__ import annotations

import json
import shlex
import time

from distgate.guests.registry import HeldGuest
from distgate.runs.directory import RunDirectory
from distgate.runs.record import RunRecord
from distgate.settings import settings
from distgate.text import fenced, inline


def reproduce_section(record: RunRecord, run_dir: RunDirectory) -> str:
    """How to reproduce the run: the guest that is held, and the command that does the run again."""
    parts = [*_held_guest(record.held)] if record.held else []
    if record.build:
        parts += [
            "On the host of this run, without Prefect or the bus:",
            fenced(f"distgate reproduce {record.run_id}"),
            f"Elsewhere: copy the directory `{run_dir.root}` and give its path instead.",
        ]
    return "\n\n".join(["## Reproduce it", *parts]) if parts else ""


def _held_guest(guest: HeldGuest) -> list[str]:
    until = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(guest.until))
    return [
        f"A guest is held until **{until}** on `{inline(guest.host)}` ({inline(guest.why)}):",
        fenced(f"{guest.ssh}\ndistgate guests down {guest.name}"),
    ]


def run_again_section(status: str, record: RunRecord, stage: str) -> str:
    """How to have the change tested again: from the stage on that did not pass, or all of it; each by a command."""
    parts = ["## Test it again"]
    if status in ("FAILURE", "ABORTED"):
        parts += ["Go on at the stage that failed (*Retry* on the run's page does the same):"]
        parts += [fenced(f"prefect flow-run retry {record.run_id}")]
    elif stage:
        parts += [f"From `{stage}` on, with the results of the stages before it:"]
        parts += [fenced(_manual(record, f"start_from={stage}"))]
    parts += ["All of it anew, from the build on:", fenced(_manual(record, "again=true"))]
    return "\n\n".join(parts)


def _manual(record: RunRecord, parameter: str) -> str:
    """A run of the change that is started by hand, in lines that a page shows whole. ``distgate replay`` starts the
    same, on hosts with the ledger."""
    config, change = settings(), record.change
    deployment = config.manual_deployment_of(record.pipeline)
    where = json.dumps({"namespace": change.namespace, "repo": change.repo, "branch": change.branch})
    what = json.dumps({"rev": change.rev})
    # The newline is one within JSON: between two members.
    parameters = [parameter, f"change={where[:-1]},\n {what[1:]}"]
    parameters += [f"site={json.dumps(record.site)}"] if record.site != config.site else []
    arguments = [f"--param {shlex.quote(parameter)}" for parameter in parameters]
    return " \\\n  ".join([f"prefect deployment run {shlex.quote(deployment)}", *arguments])
