"""The command that makes this host a worker, for as long as it is fit."""

from __future__ import annotations

import socket
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add these commands to the application."""
    app.command()(worker)


def worker(
    pool: Annotated[str, typer.Option(help="Work pool to take runs from")] = "distgate",
    name: Annotated[str, typer.Option(help="What the worker is called; this host's name by default")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Runs at the same time; each boots a guest")] = 2,
    queue: Annotated[list[str] | None, typer.Option(help="Shared queue to serve; default: default")] = None,
    kind: Annotated[str, typer.Option("--type", help="Type of the pool: process, docker")] = "process",
    with_healthcheck: Annotated[
        bool, typer.Option("--with-healthcheck", help="Answer on PREFECT_WORKER_WEBSERVER_PORT, as Prefect's own")
    ] = False,
) -> None:
    """Take runs while `distgate doctor` passes here; SIGTERM takes no more and ends after those in hand."""
    from distgate.settings import settings
    from services.worker import WorkerIdentity, serve_runs

    post = WorkerIdentity(pool, name or socket.gethostname(), limit, tuple(queue or ("default",)))
    serve_runs(settings(), post, kind, with_healthcheck=with_healthcheck)
