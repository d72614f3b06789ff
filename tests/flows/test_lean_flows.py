"""What a run pays for before its first stage: the modules that its flow imports."""

import inspect
import sys

import pytest

import blocks
from blocks.site import SiteBlock
from distgate.process import run

#: Libraries of drivers, each of which costs a stage that has a use for it and no other.
DRIVERS = (
    "ansible", "ansible_runner", "createrepo_c", "defusedxml", "dnf", "docker", "fedora_messaging", "gssapi", "koji",
    "libvirt", "pika", "prefect.server", "psycopg", "pykickstart", "requests",
    "tmt", "twisted", "xmlrpc",
)  # fmt: skip
LOOK = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sorted(sys.modules))"


@pytest.mark.parametrize("flow", ["flows.all_packages", "flows.atomic_host"])
def test_a_flow_imports_no_library_of_a_driver(flow: str) -> None:
    loaded = set(run([sys.executable, "-c", LOOK, flow], timeout=120).output.split())
    assert flow in loaded
    assert loaded.isdisjoint(DRIVERS)


def test_a_flow_imports_the_blocks_that_it_reads_and_no_other() -> None:
    loaded = set(run([sys.executable, "-c", LOOK, "flows.all_packages"], timeout=120).output.split())
    assert loaded.isdisjoint({"blocks.host_tests", "blocks.ostree_repo"})


def test_every_block_is_found_by_whoever_looks_at_the_package() -> None:
    found = {name for name, kind in inspect.getmembers(blocks, inspect.isclass) if issubclass(kind, SiteBlock)}
    assert found == set(blocks.__all__)
