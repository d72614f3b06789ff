"""The commands about a package's tests that run none: which there are, and what a run of one means."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from distgate.cli.output import AsJson, print_json
from distgate.errors import ConfigurationError
from distgate.text import printable

Kind = Literal["sti", "tmt"]


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command("tests")(find_tests)
    app.command("judge")(judge_suite)


def find_tests(
    checkout: Annotated[Path, typer.Argument(metavar="DIR", help="A package's checkout")],
    tag: Annotated[
        str, typer.Option(help="The Standard Test Interface's tag: classic, container or atomic")
    ] = "classic",
    namespace: Annotated[str, typer.Option(help="The namespace in dist-git; 'tests' has them at its root")] = "rpms",
    as_json: AsJson = False,
) -> None:
    """Say which tests a package brings. Its files are read; nothing is executed."""
    from distgate.testing.discovery import discover

    discovery = discover(checkout, tag, namespace)
    if as_json:
        print_json(discovery.as_json())
        return
    for line in [f"{suite.kind} {suite.name}{_aside(suite.problem or suite.note)}" for suite in discovery.suites]:
        print(printable(line, newlines=False))
    for line in [discovery.reason, *(f"besides: {suite.kind} {suite.name}" for suite in discovery.other)]:
        if line:
            print(printable(line, newlines=False))


def judge_suite(
    artifacts: Annotated[Path, typer.Argument(metavar="DIR", help="What the suite left: its artifacts directory")],
    rc: Annotated[int, typer.Option("--rc", help="Exit status of ansible-playbook, or of tmt")],
    unreachable: Annotated[bool, typer.Option("--unreachable", help="The guest could not be reached")] = False,
    timed_out: Annotated[bool, typer.Option("--timed-out", help="The suite was killed at its deadline")] = False,
    kind: Annotated[Kind, typer.Option(help="Who ran it: ansible-playbook (sti) or tmt")] = "sti",
    console: Annotated[Path | None, typer.Option(help="The serial console's log, evidence of a hang")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a suite's run means, and who is to blame. Exit 0 for every verdict."""
    from distgate.files import tail_of
    from distgate.testing.verdict import SuiteRun, judge

    if not artifacts.is_dir():
        raise ConfigurationError(
            f"{artifacts} is no directory", hint="name what the suite left, results.yml is in it"
        )
    seen = judge(
        SuiteRun(str(artifacts), rc, artifacts, unreachable, timed_out, kind=kind),
        tail_of(console, 2000) if console else "",
    )
    if as_json:
        print_json(asdict(seen) | {"retryable": seen.retryable})
        return
    blame = f" (blame: {seen.blame})" if seen.blame else ""
    print(printable(f"{seen.verdict}{blame}: {seen.evidence}", newlines=False))
    for test in seen.tests:
        print(printable(f"{test.result} {test.name}{_aside(test.note)}", newlines=False))


def _aside(text: Any) -> str:
    return f" ({text})" if text else ""
