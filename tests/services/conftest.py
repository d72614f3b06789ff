"""A broker and a Prefect server that these tests may break, and rooms beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rooms import Room, tidy

from distgate.process import run
from lab.sites.entrance import Entrance, entrance


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entrance]:
    """A broker and a Prefect server with the deployments, for these tests alone; no worker."""
    with entrance(tmp_path_factory.mktemp("gate")) as opened:
        yield opened


@pytest.fixture
def room(gate: Entrance, tmp_path: Path) -> Iterator[Room]:
    made = Room(gate, tmp_path, tmp_path)
    yield made
    tidy(made)


@pytest.fixture
def narrow_room(gate: Entrance, tmp_path: Path) -> Iterator[Room]:
    """A room whose ledger is on a disk of a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=1m", "distgate-test", disk], timeout=10)
    made = Room(gate, tmp_path, disk)
    try:
        yield made
        tidy(made)
    finally:
        run(["umount", "-l", disk], timeout=10)
