"""The command that prints the reference pages under docs/, each made from the code that it is about."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Literal

import typer

Page = Literal["settings", "blocks", "cli", "messages"]


def register(app: typer.Typer, all_commands: Callable[[], typer.Typer]) -> None:
    """Add the command; ``all_commands`` gives the application with all its commands."""

    @app.command()
    def reference(
        which: Annotated[Page, typer.Argument(metavar="settings|blocks|cli|messages", help="The page")],
    ) -> None:
        """Print a page of the reference: docs/reference-PAGE.md is its output, and a test compares them."""
        sys.stdout.write(page_of(which, all_commands))


def page_of(which: Page, all_commands: Callable[[], typer.Typer]) -> str:
    """The text of docs/reference-PAGE.md; ``all_commands`` as for ``register``."""
    if which == "blocks":
        from blocks.reference_page import page as blocks_page

        return blocks_page()
    if which == "cli":
        from distgate.cli.pages.cli import page as cli_page

        return cli_page(all_commands())
    if which == "messages":
        from distgate.cli.pages.messages import page as messages_page

        return messages_page()
    from distgate.cli.pages.settings import page as settings_page

    return settings_page()
