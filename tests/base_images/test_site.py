"""One source for a site's images and guests: runs, ``distgate images`` and the doctor work with the same store."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tiny_bases import Bench

from distgate.base_images.site import read_site
from distgate.errors import ConfigurationError
from distgate.process import Completed, run
from distgate.settings import Settings
from lab.servers.ports import free_ports
from lab.servers.prefect_server import PrefectServer

SAVE = """
import json, sys
from blocks import GuestMachine, ImageFactory, ImageStore
kinds = {"images": ImageStore, "factory": ImageFactory, "guests": GuestMachine}
for site, documents in json.loads(sys.argv[1]).items():
    for name, values in documents.items():
        kinds[name](**values).save(site, overwrite=True)
"""
#: What a run of a site works with.
OPEN = """
import json, sys
from blocks import ImageFactory, ImageStore
store = ImageStore.of(sys.argv[1]).store()
print(json.dumps({"root": str(store.root), "limit": store.limit, "bases": len(store.listing().entries)}))
"""


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A store with one base."""
    scratch = tmp_path_factory.mktemp("stocked")
    bench = Bench(scratch / "images", scratch / "repository")
    bench.store.base(bench.definition())
    return bench


@pytest.fixture(scope="module")
def sites(stocked: Bench, prefect_server: PrefectServer) -> dict[str, str]:
    """The environment of a host at a server with a site that names its store, and one that leaves all to the host."""
    named = {
        "images": {"root": str(stocked.root), "limit": "2G"},
        "factory": {"timeout": 7},
        "guests": {"memory": 512},
    }
    documents = {"named": named, "silent": {"images": {}, "factory": {}, "guests": {}}}
    env = dict(prefect_server.environment)
    run([sys.executable, "-c", SAVE, json.dumps(documents)], timeout=180, env=env, cwd=Path(__file__).parents[2])
    return env | {"PREFECT_API_URL": prefect_server.api_url}


def on_host(env: dict[str, str], site: str, store: Path, *argv: str) -> Completed:
    own = {"DISTGATE_SITE": site, "DISTGATE_IMAGE_STORE": str(store), "DISTGATE_IMAGE_STORE_LIMIT": "1G"}
    own |= {"DISTGATE_LEDGER_URL": "sqlite:///none.db", "DISTGATE_GUESTS_DIR": str(store.parent / "guests")}
    words = [sys.executable, *argv]
    return run(words, timeout=180, env=env | own, cwd=Path(__file__).parents[2], allowed=range(3), split_errors=True)


@pytest.mark.parametrize("site", ["named", "silent"])
def test_a_run_the_command_and_the_doctor_see_the_same_store(
    site: str, sites: dict[str, str], stocked: Bench, tmp_path: Path
) -> None:
    # The host's own setting is another store, unless the site leaves it to the host.
    setting = tmp_path / "images" if site == "named" else stocked.root
    seen_by_run = json.loads(on_host(sites, site, setting, "-c", OPEN, site).output)
    assert seen_by_run == {"root": str(stocked.root), "limit": (2 if site == "named" else 1) << 30, "bases": 1}
    listed = json.loads(on_host(sites, site, setting, "-m", "distgate.cli", "images", "list", "--json").output)
    assert (listed["root"], listed["limit"], len(listed["bases"])) == tuple(seen_by_run.values())
    doctor = ("-m", "distgate.cli", "doctor", "--check", "images", "--check", "disk", "--json")
    checks = {check["name"]: check for check in json.loads(on_host(sites, site, setting, *doctor).output)["checks"]}
    assert f"for images in {stocked.root}" in checks["disk"]["detail"]
    assert "no image store" not in checks["images"]["detail"]


def test_fields_that_a_document_leaves_empty_are_those_of_the_host(sites: dict[str, str], tmp_path: Path) -> None:
    own = Settings(
        site="named", prefect_api_url=sites["PREFECT_API_URL"], image_factory=("factory",), guests_dir=tmp_path
    )
    site = read_site(own)
    assert (site.factory.timeout, site.factory.argv) == (7, ("factory",))
    assert (site.guests.memory, site.guests.directory) == (512, tmp_path)


@pytest.mark.parametrize("reachable", [True, False])
def test_without_a_server_or_a_document_the_settings_hold(
    reachable: bool, sites: dict[str, str], tmp_path: Path
) -> None:
    api = sites["PREFECT_API_URL"] if reachable else f"http://127.0.0.1:{free_ports(1)[0]}/api"
    site = read_site(Settings(site="nosuch", prefect_api_url=api, image_store=tmp_path, image_store_limit="3G"))
    assert (site.images.directory, site.images.most_bytes) == (tmp_path, 3 << 30)


def test_a_server_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no URL"):
        read_site(Settings(prefect_api_url="localhost:4200/api"))
