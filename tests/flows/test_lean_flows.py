"""What a run pays for before its first stage: the modules that its flow imports."""

import sys

import pytest

from distgate.process import run

#: Libraries of drivers, each of which costs a stage that has a use for it and no other.
DRIVERS = (
    "ansible", "ansible_runner", "createrepo_c", "defusedxml", "dnf", "docker", "fedora_messaging", "gssapi", "koji",
    "libvirt", "pika", "prefect.server", "psycopg", "pykickstart", "requests", "sqlalchemy",
    "tmt", "twisted", "xmlrpc",
)  # fmt: skip
LOOK = "import importlib, sys; importlib.import_module(sys.argv[1]); print(*sorted(sys.modules))"


@pytest.mark.parametrize("flow", ["flows.all_packages", "flows.atomic_host"])
def test_a_flow_imports_no_library_of_a_driver(flow: str) -> None:
    loaded = set(run([sys.executable, "-c", LOOK, flow], timeout=120).output.split())
    assert flow in loaded
    assert loaded.isdisjoint(DRIVERS)
