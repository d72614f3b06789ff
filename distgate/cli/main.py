"""The command ``distgate``: all its groups of commands, imported lazily so that each command starts fast.

JSON goes to standard output alone, everything else to standard error; a user's mistake never shows a traceback.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from distgate.cli import doctor, guests, images, ledger, package_lists, reports, reproduce, tests, worker
from distgate.cli.output import AsJson, print_json
from distgate.cli.pages import reference
from distgate.errors import ConfigurationError, DistgateError
from distgate.text import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Per-commit CI for Fedora dist-git: build, image, boot, tests, and a message for every step.",
)
messages = typer.Typer(no_args_is_help=True, help="The messages on the bus.")
app.add_typer(messages, name="messages")
for commands in (ledger, tests, guests, images, package_lists, reproduce, doctor, reports, worker):
    commands.register(app)


@app.command()
def explain(
    file: Annotated[str, typer.Argument(help="A message as JSON, enveloped or bare; - reads standard input")],
    as_json: AsJson = False,
    pipeline: Annotated[
        Literal["allpackages", "atomic"], typer.Option(help="The pipeline whose trigger is asked.")
    ] = "allpackages",
) -> None:
    """Say what the trigger does with a message, and what each of its rules said. No server is needed."""
    from distgate.changes.triage import decide_text, narrate
    from distgate.settings import settings

    decision = decide_text(_read_bytes(file), settings(), pipeline)
    if as_json:
        print_json(decision.as_json())
    else:
        print("\n".join(narrate(decision)))


@messages.command("render")
def render_message(
    file: Annotated[str, typer.Argument(metavar="FACTS.json", help="The facts of a run; - reads standard input")],
    as_json: AsJson = False,
) -> None:
    """Print the message that is sent for given facts: pipeline, suffix, state, and the known fields."""
    from distgate.bus.render import parse_facts, render

    try:
        facts = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{file} is not JSON: {error}", hint="one object with pipeline, suffix, state"
        ) from error
    body = render(parse_facts(facts))
    if as_json:
        print_json(body, sort_keys=True)
    else:
        print("\n".join(f"{name}={printable(body[name], newlines=False)}" for name in sorted(body)))


@messages.command("reference")
def print_reference() -> None:
    """Print the reference page of topics and fields, docs/reference-messages.md."""
    from distgate.cli.pages.messages import page

    sys.stdout.write(page())


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["lab"]:
        _add_lab()
    if arguments[:1] == ["bench"]:
        _add_benchmarks()
    try:
        app(arguments, standalone_mode=True)
    except DistgateError as error:
        print(f"distgate: {error.message}", file=sys.stderr)
        if error.evidence:
            print(printable(error.evidence).rstrip(), file=sys.stderr)  # a build log may hold anything
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigurationError) else error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # noqa: BLE001 - a bug of ours: status 1 speaks of packages alone
        traceback.print_exc()
        sys.exit(2)
    sys.exit(0)


def all_commands() -> typer.Typer:
    """The application with all its commands, also those that ``main`` adds only when they are called."""
    names = {group.name for group in app.registered_groups} | {command.name for command in app.registered_commands}
    if "lab" not in names:
        _add_lab()
    if "bench" not in names:
        _add_benchmarks()
    return app


def _add_lab() -> None:
    from lab.cli import lab

    app.add_typer(lab, name="lab")


def _add_benchmarks() -> None:
    from benchmarks.runner import bench

    app.command("bench")(bench)


def _read_bytes(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {file}: {error.strerror}", hint="name a file, or - to pipe one in"
        ) from error


def _read(file: str) -> str:
    try:
        return _read_bytes(file).decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{file} is not UTF-8 text: {error.reason}", hint="a message is JSON in UTF-8"
        ) from error


reference.register(app, all_commands)
