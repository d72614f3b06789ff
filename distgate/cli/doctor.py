"""The command about this worker: can it do what a run will ask of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from distgate.cli.output import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from distgate.settings import Settings


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command()(doctor)


def doctor(
    free: Annotated[
        str,
        typer.Option(
            help="Disk that must be free for artifacts, images and temporary files, each; unset: DISTGATE_FREE_DISK"
        ),
    ] = "",
    check: Annotated[
        list[str] | None, typer.Option(help="Only this check, such as disk; may be given several times")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one check may take")] = 60,
    as_json: AsJson = False,
) -> None:
    """Check all that a run needs of this worker and of its servers; exit 0 when it is all there, 1 when not."""
    from distgate.doctor.checks import checks_of, chosen, examine
    from distgate.text import parse_size

    limit = parse_size(free) if free else None
    config = _settings()
    report = examine(chosen(checks_of(config, free=limit, seconds=timeout), check or ()), timeout)
    if as_json:
        print_json(report.as_json())
    else:
        print_table(("check", "state", "what was seen"), list(report.rows()), alarming=("FAILED",))
        say(report.sentence())
    raise typer.Exit(0 if report.ok else 1)


def _settings() -> Settings:
    """Our own, or those of the lab beside us with the name under which its blocks are saved."""
    from distgate.cli.nearby_lab import settings_here

    config, lab = settings_here()
    if lab is None:
        return config
    say(f"(of the lab in {lab}; DISTGATE_LEDGER_URL names another site's ledger)")
    return config
