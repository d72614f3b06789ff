"""A broker and a Prefect server that these tests may break, and sites for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_site import FaultSite, tidy
from small_disk import small_disk

from lab.sites.entrance import Entrance, entrance


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entrance]:
    """A broker and a Prefect server with the deployments, for these tests alone; no worker."""
    with entrance(tmp_path_factory.mktemp("gate")) as opened:
        yield opened


@pytest.fixture
def site(gate: Entrance, tmp_path: Path) -> Iterator[FaultSite]:
    own_site = FaultSite(gate, tmp_path, tmp_path)
    yield own_site
    tidy(own_site)


@pytest.fixture
def full_disk_site(gate: Entrance, tmp_path: Path) -> Iterator[FaultSite]:
    """A site whose ledger is on a disk of a megabyte."""
    with small_disk(tmp_path / "disk", "size=1m", lazily=True) as disk:
        own_site = FaultSite(gate, tmp_path, disk)
        yield own_site
        tidy(own_site)
