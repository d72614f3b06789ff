"""A fresh Prefect server becomes a site's: deploy/register, the block documents, and what operators do then."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.process import Completed, run
from distgate.waiting import Deadline
from lab import teardown
from lab.servers import prefect_server, supervisor
from lab.servers.prefect_server import PrefectServer
from lab.servers.service import save_service

PROJECT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True)
class Site:
    """A server, and a shell that knows it."""

    server: PrefectServer
    state: Path

    def run(self, *words: str) -> Completed:
        own = {
            **self.server.environment,
            "PATH": f"{PROGRAMS}:/usr/bin:/bin",
            "DISTGATE_IMAGE_STORE": str(self.state / "images"),
            "DISTGATE_GUESTS_DIR": str(self.state / "guests"),
        }
        return run(list(words), timeout=240, env=own, cwd=PROJECT, split_errors=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that was just started; its schedules are nobody else's."""
    state = tmp_path_factory.mktemp("site").resolve()
    server = prefect_server.prepare(state / "prefect")
    save_service(state, server.server())
    try:
        supervisor.start_supervisor(state)
        supervisor.wait_healthy(state, [prefect_server.SERVER], Deadline(180))
        yield Site(server, state)
    finally:
        teardown.down(state, print)


@pytest.fixture(scope="module")
def registered(site: Site) -> Site:
    site.run("deploy/register")
    return site


def test_an_empty_server_is_told_all_that_it_must_know(registered: Site) -> None:
    pool = json.loads(registered.run("prefect", "work-pool", "inspect", "distgate", "--output", "json").output)
    template = json.loads((PROJECT / "deploy/pools/process.json").read_text())
    assert (pool["type"], pool["base_job_template"]) == ("process", template)
    # Names are cut in the tables: JSON alone has all of each.
    known = json.loads(registered.run("prefect", "deployment", "ls", "--output", "json").output)
    assert {one["name"] for one in known} >= {"production", "manual", "hosts", "every-night"}


def test_the_documents_of_a_site_are_saved_under_its_name(registered: Site) -> None:
    said = registered.run("python", "deploy/fedora_blocks.py").output
    places = {"koji-instance", "dist-git", "image-store", "guest-machine", "image-factory"}
    assert set(said.split()) - {"saved"} == {f"{one}/fedora" for one in places}
    assert registered.run("python", "deploy/fedora_blocks.py").output == said
    program = "import distgate.settings as s, distgate.base_images.site as b; site = b.read_site(s.settings());"
    shown = registered.run("python", "-c", f"{program} print(site.guests.memory, site.images.directory)").output
    assert shown.split() == ["2048", f"{registered.state}/images"]


def test_operators_commands_of_prefect_do_what_the_pages_say(registered: Site) -> None:
    def paused() -> bool:
        told = registered.run("prefect", "work-pool", "inspect", "distgate", "--output", "json").output
        return bool(json.loads(told)["is_paused"])

    registered.run("prefect", "work-pool", "pause", "distgate")
    assert paused()
    registered.run("prefect", "work-pool", "resume", "distgate")
    assert not paused()
    registered.run("prefect", "gcl", "create", "koji-fedora", "--limit", "4")
    registered.run("prefect", "gcl", "update", "koji-fedora", "--limit", "40")
    assert "40" in registered.run("prefect", "gcl", "ls").output
    words = ("--param", "again=true", "--param", 'change={"repo": "dos2unix", "branch": "f41"}')
    said = registered.run("prefect", "deployment", "run", "all-packages/manual", *words).output
    (started,) = (line.partition("UUID: ")[2].strip() for line in said.splitlines() if "UUID: " in line)
    registered.run("prefect", "flow-run", "inspect", started)
    assert registered.run("prefect", "flow-run", "ls", "--limit", "3").output
