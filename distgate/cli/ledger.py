"""The commands that read the ledger: why, audit, replay, and the dead letters.

Every command opens what it needs itself, so that the others start fast.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distgate.cli.output import AsJson, print_json, say
from distgate.errors import ConfigurationError
from distgate.text import printable

if TYPE_CHECKING:
    from distgate.ledger.ledger import Ledger
    from distgate.settings import Settings

triggers = typer.Typer(no_args_is_help=True, help="What came from the bus.")
dead = typer.Typer(no_args_is_help=True, help="Messages that the intake refused: the queue's dead letters.")
triggers.add_typer(dead, name="dead")

#: Seconds for which a server that cannot be reached is tried again while a person waits at a terminal.
PATIENCE = 5.0
#: Lines of a list that people are shown; --json has them all.
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    for command in (why, audit, replay):
        app.command()(command)
    app.add_typer(triggers, name="triggers")


def why(
    repo: Annotated[str, typer.Argument(help="dist-git repository, such as bash or rpms/bash")],
    rev: Annotated[str, typer.Argument(help="Commit, or the beginning of its hash")],
    as_json: AsJson = False,
) -> None:
    """Say what became of a commit: the decision, its runs, and their messages. Exit 1 when it is not known."""
    from distgate.operations.ledger_queries import change_reports, is_revision
    from distgate.operations.ledger_text import format_history, history_as_json

    if not is_revision(rev):
        raise ConfigurationError(f"{rev!r} is no commit", hint="4 to 40 hexadecimal digits, as git prints them")
    with open_ledger() as (ledger, _own):
        changes = change_reports(ledger, repo, rev)
    if as_json:
        print_json({"known": bool(changes), "changes": [history_as_json(change) for change in changes]})
    elif changes:
        print("\n\n".join(format_history(change) for change in changes))
    if not changes:
        say(f"distgate: the ledger knows no commit {rev} of {repo}: no message about it was read")
        say("hint: was it pushed, and is the intake running? `distgate triggers dead list` shows what it refused")
        raise typer.Exit(1)


def audit(
    since: Annotated[
        str, typer.Option(help="Only what began since then: 2026-11-21, 2026-11-21T18:00 (UTC), 90m, 24h or 7d")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Hold every trigger, run and message against the contract; exit 0 when the books balance, 1 when not."""
    from distgate.operations.audit import audit as hold
    from distgate.operations.ledger_queries import ledger_snapshot
    from distgate.operations.ledger_text import format_audit

    now = time.time()
    beginning = parse_since(since, now) if since else 0.0
    with open_ledger() as (ledger, config):
        report = hold(
            ledger_snapshot(ledger, beginning),
            now,
            patience=max(600.0, 10 * config.run_lease, 10 * config.sweep_after),
        )
    if as_json:
        print_json(report.as_json())
    else:
        print("\n".join(format_audit(report, SHOWN)))
    raise typer.Exit(0 if report.balanced else 1)


def replay(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|RUN", help="A message as JSON, - for standard input, or a run's ID or its beginning"
        ),
    ],
    as_json: AsJson = False,
    pipeline: Annotated[
        Literal["allpackages", "atomic"] | None,
        typer.Option(help="The pipeline to run; by default the one that the run or message is of."),
    ] = None,
) -> None:
    """Feed a message or a run again: a forced re-run of its commit, whatever run holds it."""
    import uuid

    from distgate.changes.replay import change_of_file
    from distgate.operations.ledger_queries import run_of
    from distgate.prefect_api import PrefectApi
    from distgate.runs.search import run_named

    # Not Path.exists, which raises for a name that is too long, such as a message that was pasted.
    beginning = run_named(what) if not os.path.exists(what) else None
    if beginning:
        with open_ledger() as (ledger, config):
            run = run_of(ledger, beginning)
        change, of = run.change, pipeline or run.pipeline
    else:
        config = _settings()
        change, of = change_of_file(None if what == "-" else Path(what), _read(what), config, pipeline)
    with PrefectApi(config.prefect_api_url, patience=PATIENCE) as prefect:
        parameters = {"change": change.model_dump(), "again": True}
        key = f"{change.key} replay {uuid.uuid4()}"
        started = prefect.create_flow_run(config.manual_deployment_of(of), parameters, idempotency_key=key)
    page = f"{config.ui_url.rstrip('/')}/runs/flow-run/{started.id}"
    if as_json:
        print_json({"change": change.key, "pipeline": of, "flow_run": started.id, "url": page})
    else:
        print(f"{change.title} is tested again ({of}): {page}")


@dead.command("list")
def dead_list(as_json: AsJson = False) -> None:
    """Show the dead letters and why they were refused; all stay where they are."""
    from distgate.bus.dead_letters import dead_letters
    from distgate.ledger.rejections import reason_of, rejections

    with open_ledger() as (ledger, config):
        rejected = {rejection.message_id: rejection for rejection in rejections(ledger)}
    rows = []
    for message in dead_letters(config.amqp_url, config.queue):
        noted = rejected.get(printable(message.message_id, newlines=False)[:128])
        rows.append(
            {
                "message_id": message.message_id,
                "topic": message.topic,
                "reason": noted.reason if noted else reason_of(message.topic, message.raw, config),
                "seen": noted.seen if noted else 1,
                "died_at": message.died_at.isoformat() if message.died_at else None,
                "bytes": len(message.raw),
            }
        )
    if as_json:
        print_json({"queue": f"{config.queue}.dead", "letters": rows})
        return
    for row in rows:
        fields = {name: printable(str(value), newlines=False) for name, value in row.items()}
        print(f"{fields['message_id']}  {fields['topic']}  {fields['died_at']}  {fields['bytes']} bytes")
        print(f"    {fields['reason']} (seen {fields['seen']} times)")
    say(f"{len(rows)} dead letters in {config.queue}.dead")


@dead.command("requeue")
def dead_requeue(
    ids: Annotated[list[str] | None, typer.Argument(help="Message IDs, as `dead list` shows them")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them")] = False,
    as_json: AsJson = False,
) -> None:
    """Put dead letters back into the queue; the intake decides about them anew."""
    from distgate.bus.dead_letters import requeue
    from distgate.ledger.rejections import requeued

    if bool(ids) == every:
        raise ConfigurationError("which dead letters?", hint="name message IDs, or say --all")
    with open_ledger() as (ledger, config):
        message_ids = None if every else set(ids or ())
        # Noted first: the intake may refuse one again before we are back.
        requeued(
            ledger,
            [message_id for message_id in _all_dead(config) if message_ids is None or message_id in message_ids],
        )
        back = requeue(config.amqp_url, config.queue, message_ids)
    missing = sorted((message_ids or set()) - set(back))
    if as_json:
        print_json({"requeued": back, "missing": missing})
    else:
        say(f"{len(back)} messages are back in {config.queue}")
    for message_id in missing:
        say(f"no dead letter has the ID {printable(message_id, newlines=False)}")
    raise typer.Exit(1 if missing else 0)


def parse_since(text: str, now: float) -> float:
    """The moment that ``text`` names, in seconds since the epoch; ConfigurationError when it names none."""
    from datetime import UTC, datetime

    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if re.fullmatch("[0-9]{1,9}[smhd]", text):
        return now - int(text[:-1]) * units[text[-1]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no time", hint="a date, a date and time (UTC unless it says otherwise), or 90m, 24h, 7d"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _all_dead(config: Settings) -> list[str]:
    from distgate.bus.dead_letters import dead_letters

    return [message.message_id for message in dead_letters(config.amqp_url, config.queue)]


def _settings() -> Settings:
    from distgate.cli.nearby_lab import settings_here

    config, lab = settings_here()
    if lab is not None:
        say(f"(of the lab in {lab}; DISTGATE_LEDGER_URL names another ledger)")
    return config


@contextmanager
def open_ledger() -> Iterator[tuple[Ledger, Settings]]:
    """The ledger that exists, and the settings; asking is no reason to make one."""
    from distgate.ledger.database import file_of
    from distgate.ledger.ledger import Ledger

    config = _settings()
    file = file_of(config.ledger_url)
    if file is not None and not file.is_file():
        raise ConfigurationError(
            f"there is no ledger {file}", hint="DISTGATE_LEDGER_URL names it; ./run lab up starts a lab with one"
        )
    ledger = Ledger(config.ledger_url)
    try:
        yield ledger, config
    finally:
        ledger.close()


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {file}: {error.strerror}", hint="name a message file, - to pipe one in, or a run's ID"
        ) from error
