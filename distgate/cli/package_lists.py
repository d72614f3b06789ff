"""The commands about Atomic Host's package lists: what they hold, and how they are made from a treefile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distgate.cli.output import AsJson, print_json, say
from distgate.errors import ConfigurationError

if TYPE_CHECKING:
    from distgate.changes.package_lists import PackageList
    from distgate.settings import Settings

lists = typer.Typer(no_args_is_help=True, help="Which packages a branch of Atomic Host is made of.")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.add_typer(lists, name="package-lists")


@lists.command("list")
def list_lists(as_json: AsJson = False) -> None:
    """Show the list of each branch: how many lines it has, and when it was refreshed from what."""
    from distgate.changes.package_lists import lists_in

    directory = _directory(_settings())
    package_lists = lists_in(directory)
    if as_json:
        print_json(
            {"directory": str(directory), "lists": [_as_json(*branch_list) for branch_list in package_lists.items()]}
        )
        return
    for branch, package_list in package_lists.items():
        facts = _as_json(branch, package_list)
        print(f"{branch:<10} {facts['patterns']:>5}  {facts['refreshed'] or 'written by hand'}")
    say(f"{len(package_lists)} lists in {directory}")


@lists.command("refresh")
def refresh_lists(
    branches: Annotated[
        list[str] | None, typer.Argument(metavar="[BRANCH]...", help="By default those that were refreshed before")
    ] = None,
    treefile: Annotated[
        Path | None, typer.Option(help="Treefile to solve for, instead of the one that distgate brings")
    ] = None,
    repository: Annotated[
        list[str] | None,
        typer.Option(help="NAME=PLACE: directory, URL, metalink+URL or mirrorlist+URL of one of its repositories"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the sources of a branch's treefile into its list; lines that people wrote stay.

    Repositories that are not given are looked for in the .repo files beside the treefile.
    """
    from distgate.changes.package_lists import branches_refreshed
    from distgate.ostree.repo_files import repositories_of
    from distgate.ostree.sources import refresh
    from distgate.ostree.treefile import read_treefile, release_of, treefile_for

    directory = _directory(_settings())
    repositories = dict(_place(option) for option in repository or ())
    chosen = branches or branches_refreshed(directory)
    if not chosen:
        raise ConfigurationError("which branches?", hint=f"no list in {directory} was refreshed before: name one")
    done = {}
    for branch in chosen:
        tree = read_treefile(treefile or treefile_for(branch), release_of(branch))
        done[branch] = refresh(directory, branch, tree, repositories_of(tree, repositories), say)
        say(f"{done[branch].path}: {len(done[branch].patterns)} lines")
    if as_json:
        print_json({"directory": str(directory), "lists": [_as_json(*branch_list) for branch_list in done.items()]})


def _place(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or not url:
        raise ConfigurationError(f"{text!r} is no repository", hint="NAME=PLACE, such as lab=/srv/repository")
    return name, url


def _directory(config: Settings) -> Path:
    if config.package_lists is None:
        raise ConfigurationError("there are no package lists", hint="DISTGATE_PACKAGE_LISTS names their directory")
    return config.package_lists


def _settings() -> Settings:
    from distgate.settings import settings

    return settings()


def _as_json(branch: str, package_list: PackageList) -> dict[str, Any]:
    from distgate.changes.package_lists import refreshed

    return {
        "branch": branch,
        "path": str(package_list.path),
        "patterns": len(package_list.patterns),
        "refreshed": refreshed(package_list) or None,
    }
