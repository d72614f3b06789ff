"""The command that shows the reports of runs: delivered, waiting and refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distgate.cli.output import AsJson, print_json, say
from distgate.errors import ConfigurationError
from distgate.text import printable

if TYPE_CHECKING:
    from distgate.reports.outbox import ChannelState

#: Refused reports of a channel that people are shown; --json has more.
SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add this command to the application."""
    app.command()(reports)


def reports(
    again: Annotated[
        str, typer.Option(metavar="CHANNEL", help="Let the reporter try once more what this channel refused.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Show each channel of DISTGATE_REPORTS: reports delivered and waiting, and those that were refused."""
    from distgate.cli.ledger import open_ledger
    from distgate.reports.outbox import ReportOutbox, channel_states

    with open_ledger() as (ledger, _own):
        states = channel_states(ledger)
        if again:
            if again not in {state.name for state in states}:
                raise ConfigurationError(
                    f"nothing was ever reported to {again!r}", hint="`distgate reports` lists all"
                )
            back = ReportOutbox(ledger, again).again()
            say(f"{back} reports to {again} are tried again")
            states = channel_states(ledger)
    now = time.time()
    if as_json:
        print_json({"channels": [_as_json(state, now) for state in states]})
    else:
        print("\n".join(line for state in states for line in _lines(state, now)) or "nothing was ever reported")


def _as_json(state: ChannelState, now: float) -> dict[str, Any]:
    return {
        "channel": state.name,
        "delivered": state.delivered,
        "pending": state.pending,
        "oldest_pending_seconds": round(now - state.oldest, 1) if state.oldest else None,
        "error": state.error or None,
        "refused": [
            {
                "build_id": report.build_id,
                "topic": report.topic,
                "error": report.error,
                "age_seconds": round(now - report.at, 1),
            }
            for report in state.refused
        ],
    }


def _lines(state: ChannelState, now: float) -> Iterator[str]:
    waiting = f", the oldest for {now - state.oldest:.0f} s" if state.oldest else ""
    yield f"{state.name}: {state.delivered} delivered, {state.pending} pending{waiting}, {len(state.refused)} refused"
    if state.error:
        yield f"  waits because: {printable(state.error, newlines=False)}"
    for report in state.refused[:SHOWN]:
        yield f"  refused {report.topic} of {report.build_id}: {printable(report.error, newlines=False)}"
    if len(state.refused) > SHOWN:
        yield f"  ... and {len(state.refused) - SHOWN} more; --json has them"
