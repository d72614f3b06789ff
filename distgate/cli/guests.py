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

#: Seconds between looks at a console that is followed.
LOOK = 0.3


def register(app: typer.Typer) -> None:
    """Add these commands to the door."""
    app.add_typer(guests, name="guests")


@guests.command("list")
def list_guests(as_json: AsJson = False) -> None:
    """Show the guests that run here: those of runs, and those that are held for people."""
    found = _all()
    if as_json:
        print_json({"guests": [_as_json(one) for one in found]})
        return
    for one in found:
        print("\n".join(_lines(one)))
    say(f"{len(found)} guests run on this host")


@guests.command("ssh", context_settings={"ignore_unknown_options": True})
def ssh_into(
    name: Name,
    command: Annotated[
        list[str] | None, typer.Argument(help="What to run there, after --; a shell without it")
    ] = None,
) -> None:
    """Log in to a guest as root."""
    from distgate.guests.registry import ssh_words

    words = [*ssh_words(_find(name)[1]), *(["--", *command] if command else [])]
    os.execvp(words[0], words)  # noqa: S606 - this terminal is the guest's from here on


@guests.command("console")
def show_console(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the guest ends")] = False,
) -> None:
    """Print what a guest wrote to its serial console."""
    known = _find(name)[1]
    with known.console.open("rb") as stream:
        while True:
            if stream.tell() > known.console.stat().st_size:  # it was shortened
                stream.seek(0)
            text = printable(stream.read().decode("utf-8", "replace"))
            sys.stdout.write(text)
            sys.stdout.flush()
            if not text and not (follow and known.alive):
                return
            if not text:
                time.sleep(LOOK)


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
        (state, one) for state in _states() for one in _registered(state) if one.held
    ]
    for state, one in chosen:
        end_held(state, one)
        say(f"{one.name} is gone")


def _states() -> list[Path]:
    """Where guests of this host are registered: the site's directory, and that of a lab beside us."""
    from distgate.base_images.site import read_site
    from distgate.settings import settings

    own = settings()
    lab = own.lab_state.resolve() / "guests"
    state = read_site(own).guests.directory
    return [state] if own.guests_dir or not lab.is_dir() else [state, lab]


def _registered(state: Path) -> list[GuestRecord]:
    from distgate.guests.registry import GuestRegistry

    return GuestRegistry(state).all()


def _all() -> list[GuestRecord]:
    return [one for state in _states() for one in _registered(state)]


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


def _as_json(one: GuestRecord) -> dict[str, Any]:
    return {
        "name": one.name,
        "run": one.run,
        "held": one.held,
        "until": one.until,
        "since": one.since,
        "why": one.why,
        "ssh": one.ssh_line,
        "port": one.port,
        "console": str(one.console),
        "image": str(one.image),
        "workdir": str(one.workdir),
        "pid": one.pid,
        "qemu_pid": one.qemu_pid,
    }


def _lines(one: GuestRecord) -> list[str]:
    now = time.time()
    state = f"held for {max(0.0, (one.until or now) - now) / 60:.0f} min more" if one.held else "used by a run"
    why = f": {printable(one.why, newlines=False)}" if one.why else ""
    up = f"up {(now - one.since) / 60:.0f} min"
    return [f"{one.name}  {up}, {state}{why}", f"    {one.ssh_line}", f"    in {one.workdir}"]
