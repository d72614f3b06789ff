"""``distgate lab``: the local world for people."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Column, Table

from distgate.errors import ConfigurationError, DistgateError
from distgate.settings import settings

lab = typer.Typer(
    no_args_is_help=True, help="A whole world on this machine: broker, Prefect, dist-git, Koji, images."
)

BREAK = "a commit that fails in just that stage: lab/dist_git/packages/dos2unix/breaks.yml has them"
State = Annotated[Path | None, typer.Option(help="State directory of the lab  [default: .lab]")]


def _state(directory: Path | None) -> Path:
    return (directory or settings().lab_state).resolve()


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def _hint_when_interrupted(state: Path) -> Iterator[None]:
    """Tell a user who breaks off the demo that the lab, and the run in it, go on."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _report(f"no longer following; the lab in {state} is still up\nhint: ./run lab down ends it")
        raise


def _unwind_when_ended() -> None:
    """SIGTERM and SIGHUP unwind us as Ctrl-C does: a start that is broken off ends what it had started."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup's "ignore" stays
            signal.signal(number, leave)


@lab.command()
def up(state: State = None) -> None:
    """Start every service; what is costly to make is made once and kept in the cache."""
    from lab.world import up as start

    _unwind_when_ended()
    world = start(_state(state), settings().cache, _report)
    addresses = ("Prefect UI", world.prefect_ui_url), ("broker", world.amqp_url), ("dist-git", world.dist_git_url)
    for what, url in (*addresses, ("metrics", world.metrics_url)):
        print(f"{what:11} {url}")


@lab.command()
def down(state: State = None) -> None:
    """End every service and everything they started."""
    from lab.world import down as end

    end(_state(state), _report)


@lab.command()
def status(state: State = None) -> None:
    """Show every service, its health and its log; exit status 1 when one is not healthy."""
    from lab.servers.supervisor import status as service_status

    services = service_status(_state(state))
    if not services:
        raise ConfigurationError(f"no lab is up in {_state(state)}", hint="./run lab up starts one")
    table = Table("service", "pid", "healthy", "restarts", Column("log", overflow="fold"), box=None, pad_edge=False)
    for service in services:
        healthy = "yes" if service.healthy else "NO"
        table.add_row(service.name, str(service.pid or ""), healthy, str(service.restarts), str(service.log))
    console = Console()
    # A log's path is there to be copied: never cut it, whatever the terminal's width.
    longest = max(len(str(service.log)) for service in services)
    console.print(table, width=max(console.width, 60 + longest), crop=False)
    raise typer.Exit(0 if all(service.healthy for service in services) else 1)


@lab.command()
def env(state: State = None) -> None:
    """Print what a shell needs to work in the lab, as bare `prefect` and `distgate` do: eval "$(./run lab env)"."""
    from lab.world import World

    environment = World.load(_state(state)).environment
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())))


@lab.command()
def push(
    stage: Annotated[str, typer.Option("--break", help=BREAK)] = "",
    branch: Annotated[str, typer.Option(help="Branch of the demo package to push to")] = "f41",
    state: State = None,
) -> None:
    """Push a commit to the lab's dist-git and print its hash."""
    from lab.dist_git.demo_package import push_change
    from lab.world import World

    print(push_change(World.load(_state(state)).demo_repository, branch, stage))


@lab.command()
def demo(
    stage: Annotated[str, typer.Option("--break", help=BREAK)] = "",
    pipeline: Annotated[
        Literal["allpackages", "atomic"], typer.Option(help="The pipeline that the commit is taken through")
    ] = "allpackages",
    state: State = None,
) -> None:
    """Take a real commit through the whole pipeline; exit status 0 SUCCESS, 1 UNSTABLE or FAILURE, 2 broken lab."""
    from lab.demo import demo as follow
    from lab.dist_git.demo_package import breaks
    from lab.world import up as start

    if stage and stage not in breaks():
        raise ConfigurationError(f"no stage is called {stage}", hint=f"one of {', '.join(breaks())}")
    _unwind_when_ended()
    try:
        world = start(_state(state), settings().cache, _report)
        with _hint_when_interrupted(world.state):
            code = follow(world, stage, Console(), pipeline)
    except DistgateError as error:
        error_text = f"the lab broke: {error.message}"
        _report(
            "\n".join(
                part for part in (error_text, error.evidence, f"hint: {error.hint}" if error.hint else "") if part
            )
        )
        raise typer.Exit(2) from error
    raise typer.Exit(code)


@lab.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def imagefactory(context: typer.Context) -> None:
    """Build an image as imagefactory does, with its command line, from the lab's packages (as root)."""
    from lab.images.imagefactory import main

    raise typer.Exit(main(context.args))
