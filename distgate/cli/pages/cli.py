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
    found = sorted(commands(get_command(app)), key=lambda one: one[0])
    return "\n".join([HEAD, *(_section(words, command) for words, command in found)])


def commands(
    command: object, words: tuple[str, ...] = ("distgate",)
) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Every command at or below ``command`` that does something, with the words that call it."""
    if isinstance(command, TyperGroup):
        for name, one in command.commands.items():
            yield from commands(one, (*words, name))
    elif isinstance(command, TyperCommand):
        yield words, command


def _section(words: tuple[str, ...], command: TyperCommand) -> str:
    context = command.make_context(words[-1], [], resilient_parsing=True)
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    options = [one for one in command.params if isinstance(one, TyperOption)]
    needed = [f"{one.opts[0]} {_value(one, context)}" for one in options if one.required]
    called = " ".join([*words, *(_called(one) for one in arguments), *needed])
    rows = [(f"`{_called(one)}`", one.help or "", "") for one in arguments]
    for one in options:
        # Flags are off unless given, and what must be given has no default.
        default = "" if one.is_flag or one.required or one.default in (None, "") else shown_value(one.default)
        kind = "" if one.is_flag else f" {_value(one, context)}"
        rows.append((f"`{', '.join(one.opts)}{kind}`", f"{one.help}{' (required)' if one.required else ''}", default))
    described = f"\n{table(('', '', 'default'), rows)}\n" if rows else ""
    return f"## `{called}`\n\n{command.help}\n{described}"


def _name(argument: TyperArgument) -> str:
    return (argument.metavar or argument.name or "").strip("[].")


def _called(argument: TyperArgument) -> str:
    name = _name(argument) if argument.metavar else _name(argument).upper()
    many = f"{name}..." if argument.nargs != 1 else name
    return many if argument.required else f"[{many}]"


def _value(option: TyperOption, context: Any) -> str:
    """The placeholder for an option's value; typer says <list[str]> or <float range>."""
    if option.metavar:
        return option.metavar
    bare = option.display_type(context).strip("<>").removeprefix("list[").removesuffix("]").removesuffix(" range")
    return KINDS.get(bare, bare)
