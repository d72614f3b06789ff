"""The commands about the guests of this host: list, ssh, console, down."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distgate.cli.output import AsJson, print_json, say
from distgate.text import printable

if TYPE_CHECKING:
    from distgate.guests.registry import GuestRecord

Name = Annotated[str, typer.Argument(help="A guest's name, or its beginning or end, as `guests list` shows it")]
guests = typer.Typer(no_args_is_help=True, help="The guests that run on this host.")

#: Seconds between two reads of a console that is followed.
POLL_SECONDS = 0.3


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.add_typer(guests, name="guests")


@guests.command("list")
def list_guests(as_json: AsJson = False) -> None:
    """Show the guests that run here: those of runs, and those that are held for people."""
    records = _all()
    if as_json:
        print_json({"guests": [_as_json(record) for record in records]})
        return
    for record in records:
        print("\n".join(_lines(record)))
    say(f"{len(records)} guests run on this host")


@guests.command("ssh", context_settings={"ignore_unknown_options": True})
def ssh_into(
    name: Name,
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run there, after --; a shell without it")
    ] = None,
) -> None:
    """Log in to a guest as root."""
    from distgate.guests.registry import ssh_words

    argv = [*ssh_words(_find(name)[1]), *(["--", *command] if command else [])]
    os.execvp(argv[0], argv)  # noqa: S606 - this terminal is the guest's from here on


@guests.command("console")
def show_console(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the guest ends")] = False,
) -> None:
    """Print what a guest wrote to its serial console."""
    record = _find(name)[1]
    with record.console.open("rb") as stream:
        while True:
            if stream.tell() > record.console.stat().st_size:  # it was shortened
                stream.seek(0)
            text = printable(stream.read().decode("utf-8", "replace"))
            sys.stdout.write(text)
            sys.stdout.flush()
            if not text and not (follow and record.alive):
                return
            if not text:
                time.sleep(POLL_SECONDS)


@guests.command("down")
def end_guests(
    names: Annotated[list[str] | None, typer.Argument(help="Names, as `guests list` shows them")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that are held; not those of runs")] = False,
) -> None:
    """End guests that are held for people. Those of runs end with their runs."""
    from distgate.errors import ConfigurationError
    from distgate.guests.monitor import end_held

    if bool(names) == every:
        raise ConfigurationError("which guests?", hint="name them, or say --all")
    chosen = [_find(name) for name in names or ()] or [
        (state, record) for state in _states() for record in _registered(state) if record.held
    ]
    for state, record in chosen:
        end_held(state, record)
        say(f"{record.name} is gone")


def _states() -> list[Path]:
    """Where guests of this host are registered: the site's directory, and that of a lab beside us."""
    from distgate.base_images.site import read_site
    from distgate.settings import settings

    config = settings()
    lab = config.lab_state.resolve() / "guests"
    state = read_site(config).guests.directory
    return [state] if config.guests_dir or not lab.is_dir() else [state, lab]


def _registered(state: Path) -> list[GuestRecord]:
    from distgate.guests.registry import GuestRegistry

    return GuestRegistry(state).all()


def _all() -> list[GuestRecord]:
    return [record for state in _states() for record in _registered(state)]


def _find(name: str) -> tuple[Path, GuestRecord]:
    from distgate.errors import ConfigurationError
    from distgate.guests.registry import GuestRegistry, matching

    states = _states()
    for state in states:
        if matching(_registered(state), name):
            return state, GuestRegistry(state).find(name)
    raise ConfigurationError(
        f"no running guest is called {printable(name, newlines=False)!r}",
        hint=f"`distgate guests list` shows those of {', '.join(map(str, states))}",
    )


def _as_json(record: GuestRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "run": record.run,
        "held": record.held,
        "until": record.until,
        "since": record.since,
        "why": record.why,
        "ssh": record.ssh_line,
        "port": record.port,
        "console": str(record.console),
        "image": str(record.image),
        "workdir": str(record.workdir),
        "pid": record.pid,
        "qemu_pid": record.qemu_pid,
    }


def _lines(record: GuestRecord) -> list[str]:
    now = time.time()
    state = f"held for {max(0.0, (record.until or now) - now) / 60:.0f} min more" if record.held else "used by a run"
    why = f": {printable(record.why, newlines=False)}" if record.why else ""
    up = f"up {(now - record.since) / 60:.0f} min"
    return [f"{record.name}  {up}, {state}{why}", f"    {record.ssh_line}", f"    in {record.workdir}"]
