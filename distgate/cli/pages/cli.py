"""The page docs/reference-cli.md, made from the command line itself: ``distgate reference cli``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from distgate.text import shown_value, table

#: Placeholders for the values of options, by their type.
KINDS = {"str": "TEXT", "int": "N", "float": "NUMBER", "path": "PATH", "file": "FILE", "directory": "DIR"}
HEAD = """\
# Reference: the command line

<!-- Made by `distgate reference cli` from the commands themselves; a test compares. -->

In a checkout `./run` takes the same words as `.venv/bin/distgate`, after installing what is missing; `./run demo` is
`distgate lab demo`. With `--json` a command prints one JSON object on standard output, and nothing else there.
Exit status 2 is a wrong call, a wrong setting or trouble on our side; 1 speaks of a package, or says "no".
"""


def page(app: typer.Typer) -> str:
    """The whole page for the commands of ``app`` as markdown, ending in a newline."""
    sorted_commands = sorted(commands(get_command(app)), key=lambda entry: entry[0])
    return "\n".join([HEAD, *(_section(path, command) for path, command in sorted_commands)])


def commands(
    command: object, path: tuple[str, ...] = ("distgate",)
) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Every command at or below ``command`` that does something, with the path that calls it."""
    if isinstance(command, TyperGroup):
        for name, subcommand in command.commands.items():
            yield from commands(subcommand, (*path, name))
    elif isinstance(command, TyperCommand):
        yield path, command


def _section(path: tuple[str, ...], command: TyperCommand) -> str:
    context = command.make_context(path[-1], [], resilient_parsing=True)
    arguments = [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]
    options = [parameter for parameter in command.params if isinstance(parameter, TyperOption)]
    needed = [f"{option.opts[0]} {_value(option, context)}" for option in options if option.required]
    called = " ".join([*path, *(_called(argument) for argument in arguments), *needed])
    rows = [(f"`{_called(argument)}`", argument.help or "", "") for argument in arguments]
    for option in options:
        # Flags are off unless given, and what must be given has no default.
        default = (
            "" if option.is_flag or option.required or option.default in (None, "") else shown_value(option.default)
        )
        kind = "" if option.is_flag else f" {_value(option, context)}"
        rows.append(
            (f"`{', '.join(option.opts)}{kind}`", f"{option.help}{' (required)' if option.required else ''}", default)
        )
    described = f"\n{table(('', '', 'default'), rows)}\n" if rows else ""
    return f"## `{called}`\n\n{command.help}\n{described}"


def _name(argument: TyperArgument) -> str:
    return (argument.metavar or argument.name or "").strip("[].")


def _called(argument: TyperArgument) -> str:
    name = _name(argument) if argument.metavar else _name(argument).upper()
    many = f"{name}..." if argument.nargs != 1 else name
    return many if argument.required else f"[{many}]"


def _value(option: TyperOption, context: Any) -> str:
    """The placeholder for an option's value; typer writes <list[str]> or <float range>."""
    if option.metavar:
        return option.metavar
    bare = option.display_type(context).strip("<>").removeprefix("list[").removesuffix("]").removesuffix(" range")
    return KINDS.get(bare, bare)
