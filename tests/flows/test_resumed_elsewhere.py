"""Hosts that share no file system resume each other's runs, from an object store and Prefect's results in another."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from object_store import ObjectStore, running_object_store

from distgate.ledger.ledger import Ledger
from distgate.process import Completed, run
from lab.servers.prefect_server import PrefectServer
from lab.world import PROJECT

HERE = Path(__file__).parent
SAVE = """
import sys
from prefect.filesystems import RemoteFileSystem
from blocks import ArtifactStore, ImageStore

site, url, artifacts, address = sys.argv[1:]
options = {"key": "tests", "secret": "tests", "endpoint_url": address}
ArtifactStore(url=artifacts, options=options).save(site)
ImageStore(root="images").save(site)  # of each host: the path is relative to it
RemoteFileSystem(basepath=f"{url}/results", settings=options).save(f"results-{site}")
"""


@dataclass(frozen=True)
class Site:
    """A Prefect server, a ledger and an object store, and hosts that come and go."""

    server: PrefectServer
    world: Path
    store: ObjectStore
    url: str
    name: str

    def on_host(self, host: str, start_from: str = "") -> Completed:
        """One run there; what the host has on its disk lies at the same path as on every other."""
        disk, mounted = self.world / host, self.world / "host"
        disk.mkdir(exist_ok=True)
        disk.rename(mounted)
        own = {
            "DISTGATE_LEDGER_URL": f"sqlite:///{self.world}/ledger.db",
            "DISTGATE_ARTIFACTS_DIR": str(mounted / "artifacts"),
            "DISTGATE_ARTIFACTS_URL": "https://artifacts.example.org",
            "DISTGATE_RETRY_DELAYS": "[]",
            "PREFECT_HOME": str(mounted / "prefect"),
            "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": f"remote-file-system/results-{self.name}",
            "PYTHONPATH": str(PROJECT),
        }
        argv = [sys.executable, HERE / "travelling_pipeline.py", self.world, self.name, start_from]
        try:
            return run(argv, timeout=300, env=self.server.environment | own, allowed=(0, 1), cwd=mounted)
        finally:
            mounted.rename(disk)

    def store_on(self, host: str) -> str:
        return (self.world / host / "images" / "identity").read_text()


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with running_object_store() as running:
        yield running


def site_of(server: PrefectServer, world: Path, store: ObjectStore, artifacts: str = "") -> Site:
    site = Site(server, world, store, store.bucket(), f"travelling-{uuid4().hex[:8]}")
    argv = [sys.executable, "-c", SAVE, site.name, site.url, artifacts or f"{site.url}/artifacts", store.address]
    run(argv, timeout=120, env=server.environment | {"PYTHONPATH": str(PROJECT)}, cwd=PROJECT)
    return site


def test_hosts_without_a_common_disk_resume_each_others_runs(
    prefect_server: PrefectServer, tmp_path: Path, store: ObjectStore
) -> None:
    site = site_of(prefect_server, tmp_path, store)
    (site.world / "broken").touch()
    assert site.on_host("one").returncode == 1
    (site.world / "broken").unlink()
    elsewhere = site.on_host("two", "image.test.smoke")
    assert elsewhere.returncode == 0, elsewhere.output
    one, two = site.store_on("one"), site.store_on("two")
    # An image needs the base below it, so the other host makes its own and boots that one; the build is one.
    assert (site.world / "done").read_text().splitlines() == [
        f"built in {one}",
        f"composed in {one}",
        f"composed in {two}",
        f"booted in {two}",
    ]

    again = site.on_host("two", "image.test.smoke")
    assert again.returncode == 0, again.output
    assert (site.world / "done").read_text().splitlines()[4:] == [f"booted in {two}"]

    letters = Ledger(f"sqlite:///{site.world}/ledger.db").unsent()
    first, second, third = dict.fromkeys(letter.body["build_id"] for letter in letters)
    console = site.store.files().cat_file(f"{site.url}/artifacts/{first}/smoke/console.log").decode()
    assert console == f"tiny on the base of {one}"
    kept = {name.partition("/artifacts/")[2] for name in site.store.files().find(site.url)}
    assert {f"{first}/build/tiny.rpm", f"{second}/image/tiny.qcow2", f"{third}/smoke/console.log"} <= kept


def test_a_stage_whose_artifacts_cannot_be_kept_has_not_passed(
    prefect_server: PrefectServer, tmp_path: Path, store: ObjectStore
) -> None:
    site = site_of(prefect_server, tmp_path, store, artifacts="s3://nowhere/artifacts")
    ended = site.on_host("one")
    assert ended.returncode == 1
    assert "does not do its work" in ended.output
    letters = Ledger(f"sqlite:///{site.world}/ledger.db").unsent()
    assert [(letter.topic.partition("allpackages.")[2], letter.body["status"]) for letter in letters][-2:] == [
        ("package.complete", "FAILURE"),
        ("complete", "FAILURE"),
    ]
