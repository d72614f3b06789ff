"""The commands about base images: what the store holds, and how it is kept small, sound and fresh.

They work beside a running pipeline, on the store that its runs use, and without a Prefect server
(distgate.base_images.site.read_site).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distgate.cli.output import AsJson, print_json, print_table, say
from distgate.errors import ConfigurationError
from distgate.text import format_size, parse_size, printable

if TYPE_CHECKING:
    from distgate.base_images.entries import BaseEntry, StoreListing, UnreadableEntry
    from distgate.base_images.prune import Pruned
    from distgate.base_images.site import Site
    from distgate.base_images.store import BaseStore

Branch = Annotated[str, typer.Option(help="dist-git branch, such as rawhide or f44")]
images = typer.Typer(no_args_is_help=True, help="The base images that commits are composed onto.")


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.add_typer(images, name="images")


@images.command("list")
def list_images(as_json: AsJson = False) -> None:
    """Show the base images with age, size, leases and qualification."""
    store = _store()
    listing = store.listing()
    if as_json:
        print_json(_listing_as_json(store, listing))
        return
    now = time.time()
    heads = ("identity", "image", "branch", "age", "size", "qualification", "leased by")
    print_table(heads, [_row(entry, listing, now) for entry in listing.entries])
    for entry in listing.odd:
        say(f"not readable: {_plain(entry.problem)}")
    count = len(listing.entries)
    what = "1 base image takes" if count == 1 else f"{count} base images take"
    say(f"{what} {format_size(listing.size)} of {format_size(store.limit)}")


@images.command("prune")
def prune_images(
    limit: Annotated[str, typer.Option(help="Size to come down to, such as 20G; unset: the store's own")] = "",
    ended: Annotated[
        list[str] | None, typer.Option(help="A branch that has ended: its bases go whatever the limit is")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what was used longest ago until the limit is kept; never what is leased or current."""
    store = _store()
    for branch in ended or ():
        _chosen(store.listing(), branch, again=True)
    pruned = store.prune(parse_size(limit) if limit else None, dry_run=dry_run, ended=ended or ())
    if as_json:
        print_json({**asdict(pruned), "within_limit": pruned.within_limit, "dry_run": dry_run})
    else:
        _print_pruned(pruned, dry_run)


@images.command("qualify")
def qualify_images(
    identity: Annotated[str, typer.Argument(help="A base image, or the beginning of its identity")] = "",
    branch: Annotated[str, typer.Option(help="All base images of a branch")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also those that were tried before")] = False,
    as_json: AsJson = False,
) -> None:
    """Boot base images once and say what was found; without a name, all that were never tried.

    Exit 2 when one is refused.
    """
    if identity and branch:
        raise ConfigurationError("which base images?", hint="name one, or a branch, not both")
    store = _store_with_tools()
    chosen = [store.find(identity)] if identity else _chosen(store.listing(), branch, again)
    done = []
    for entry in chosen:
        store.qualify(entry.identity, again=again, progress=say)
        done.append(store.find(entry.identity))
    if as_json:
        print_json({"bases": [_as_json(entry, store.listing()) for entry in done]})
    elif done:
        print_table(
            ("identity", "image", "branch", "qualification", "took", "under"),
            [_outcome_row(outcome) for outcome in done],
        )
    else:
        say("there is no base image to try; --again tries those that were tried before")
    _raise_for_refused(done)


@images.command("refresh")
def refresh_images(
    branch: Branch,
    kickstart: Annotated[
        Path | None, typer.Option(help="Kickstart to build from, instead of the branch's own")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build and qualify the base image of a branch for what its repositories hold now, unless it is there."""
    from distgate.base_images.open import definition_of, key_of

    site, store = _site(), _store_with_tools()
    kickstarts = {branch: kickstart} if kickstart else site.images.kickstarts
    base = store.refresh(definition_of(branch, key_of(site.images), kickstarts), say)
    entry = store.find(base.identity)
    if as_json:
        print_json(_as_json(entry, store.listing()))
    else:
        print(f"{entry.title} is current: {base.path}")


@cache
def _site() -> Site:
    from distgate.base_images.site import read_site
    from distgate.cli.nearby_lab import settings_here

    return read_site(settings_here()[0])


def _store() -> BaseStore:
    """The store for commands that only list or remove."""
    from distgate.base_images.store import BaseStore

    fields = _site().images
    if not fields.directory.is_dir():
        raise ConfigurationError(
            f"there is no image store {fields.directory}",
            hint="the block image-store or DISTGATE_IMAGE_STORE names it; distgate images refresh --branch BRANCH "
            "begins one",
        )
    return BaseStore(fields.directory, fields.most_bytes)


def _store_with_tools() -> BaseStore:
    from distgate.base_images.open import open_store
    from distgate.guests.host import open_guests
    from distgate.kickstart.base import open_builder

    site = _site()
    return open_store(
        site.images,
        builder=open_builder(site.factory),
        guests=open_guests(site.guests),
        build_timeout=site.factory.timeout,
        owner="distgate images",
    )


def _chosen(listing: StoreListing, branch: str, again: bool) -> list[BaseEntry]:
    entries = [entry for entry in listing.entries if not branch or entry.facts.branch == branch]
    if branch and not entries:
        raise ConfigurationError(
            f"there is no base image of branch {branch}", hint="distgate images list shows all there are"
        )
    return [entry for entry in entries if again or entry.qualification is None or branch]


def _raise_for_refused(done: Sequence[BaseEntry]) -> None:
    from distgate.base_images.store import refusal

    for entry in done:
        if entry.refused:
            raise refusal(entry)


def _row(entry: BaseEntry, listing: StoreListing, now: float) -> list[str]:
    from distgate.locks import leases

    current = " (current)" if _is_current(entry, listing) else ""
    return [
        entry.identity,
        entry.facts.name,
        f"{entry.facts.branch}{current}",
        format_age(now - entry.facts.created),
        format_size(entry.size),
        _verdict(entry),
        "\n".join(str(holder) for holder in leases(entry.directory)),
    ]


def _outcome_row(entry: BaseEntry) -> list[str]:
    qualification = entry.qualification
    took, under = (f"{qualification.seconds:.1f} s", qualification.accelerator) if qualification else ("", "")
    return [entry.identity, entry.facts.name, entry.facts.branch, _verdict(entry), took, under]


def _verdict(entry: BaseEntry) -> str:
    if entry.qualification is None:
        return "not tried"
    return "qualified" if entry.qualified else f"refused: {'; '.join(entry.qualification.reasons)}"


def _is_current(entry: BaseEntry, listing: StoreListing) -> bool:
    serving = listing.current.get((entry.facts.branch, entry.facts.name))
    return serving is not None and serving.identity == entry.identity


def _listing_as_json(store: BaseStore, listing: StoreListing) -> dict[str, Any]:
    return {
        "root": str(store.root),
        "limit": store.limit,
        "size": listing.size,
        "bases": [_as_json(entry, listing) for entry in listing.entries],
        "unreadable": [_unreadable_as_json(entry) for entry in listing.odd],
    }


def _as_json(entry: BaseEntry, listing: StoreListing) -> dict[str, Any]:
    from distgate.locks import leases

    facts, qualification = entry.facts, entry.qualification
    return {
        "identity": entry.identity,
        "name": facts.name,
        "branch": facts.branch,
        "path": str(entry.base.path),
        "created": facts.created,
        "used": entry.used,
        "confirmed": entry.confirmed,
        "age": round(time.time() - facts.created),
        "size": entry.size,
        "current": _is_current(entry, listing),
        "status": "untried" if qualification is None else "qualified" if qualification.passed else "refused",
        "qualification": asdict(qualification) if qualification else None,
        "leases": [asdict(holder) for holder in leases(entry.directory)],
        "kickstart_hash": facts.kickstart_hash,
        "snapshot": facts.snapshot,
        "packages": len(facts.packages),
        "steps": [asdict(step) for step in facts.steps],
    }


def _unreadable_as_json(entry: UnreadableEntry) -> dict[str, Any]:
    return {"path": str(entry.directory), "problem": entry.problem, "size": entry.size}


def _print_pruned(pruned: Pruned, dry_run: bool) -> None:
    action = "would be removed" if dry_run else "removed"
    rows = [[base.identity, action, format_size(base.size), base.reason] for base in pruned.removed]
    rows += [[identity, "kept", "", reason] for identity, reason in pruned.kept.items()]
    if rows:
        print_table(("identity", "", "size", "why"), rows)
    say(
        f"{format_size(pruned.before)} before, {format_size(pruned.after)} after; the limit is "
        f"{format_size(pruned.limit)}" + ("" if pruned.within_limit else ", and what is kept takes more")
    )


def format_age(seconds: float) -> str:
    """An age for people in its largest unit: 40 s, 5 min, 3 h, 12 d."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _plain(text: str) -> str:
    return printable(text, newlines=False)
