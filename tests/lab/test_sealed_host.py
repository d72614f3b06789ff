"""A sealed host: what is done in it reaches nobody else, and nothing of it outlives whoever asked for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError
from distgate.waiting import wait_for
from lab.sites import containers
from lab.sites.sealed_host import SealedHost, sealed_host
from lab.teardown import mounts_below

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces without a user namespace take root")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sealed").resolve()


@pytest.fixture(scope="module")
def host(state: Path) -> Iterator[SealedHost]:
    with sealed_host(state / "host", "sealed-host") as made:
        yield made


def said(host: SealedHost, *words: str) -> str:
    return host.run(["sh", "-c", " ".join(words)], timeout=30).output.strip()


def test_it_has_a_name_and_processes_of_its_own(host: SealedHost) -> None:
    assert said(host, "hostname") == "sealed-host" != os.uname().nodename
    assert "lab.sites.sealed_host" in said(host, "tr '\\0' ' ' < /proc/1/cmdline")


@pytest.mark.parametrize("place", ["/etc", "/opt", "/var/lib"])
def test_what_is_written_in_it_stays_in_it(host: SealedHost, place: str) -> None:
    path = f"{place}/distgate-sealed-host-test"
    said(host, f"echo word > {path}")
    assert not Path(path).exists()
    assert host.path(path).read_text() == "word\n"


def test_what_it_removes_is_still_here(host: SealedHost) -> None:
    said(host, "rm /etc/hostname /etc/passwd; test ! -e /etc/passwd")
    assert Path("/etc/passwd").exists()


def test_its_network_is_a_loopback_interface_of_its_own(host: SealedHost) -> None:
    lines = said(host, "tail -n +3 /proc/net/dev").splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    listen = (
        "import socket; one = socket.create_server(('127.0.0.1', 80)); socket.create_connection(one.getsockname())"
    )
    host.run([sys.executable, "-c", listen], timeout=30)


def test_it_can_share_the_network_of_this_host(state: Path) -> None:
    with sealed_host(state / "shared", "shared", network=False) as host:
        assert said(host, "readlink /proc/self/ns/net") == os.readlink("/proc/self/ns/net")


def test_nothing_of_it_is_left_when_whoever_asked_is_killed(state: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from lab.sites.sealed_host import sealed_host\n"
        "with sealed_host(Path(sys.argv[1]), 'doomed') as host:\n"
        "    host.run(['sh', '-c', 'setsid sleep 1000 > /dev/null 2>&1 &'], timeout=10)\n"
        "    print(host.pid, flush=True); time.sleep(1000)"
    )
    words = [sys.executable, "-c", program, str(state / "doomed")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as asked:
        assert asked.stdout
        first = int(asked.stdout.readline())
        space = os.readlink(f"/proc/{first}/ns/pid")
        assert len(members(space)) >= 2
        asked.send_signal(signal.SIGKILL)
    wait_for("every process of it to end", lambda: not members(space), 20)
    assert mounts_below(state) == []


def members(space: str) -> list[int]:
    """The processes of a namespace of processes."""
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if space_of(pid) == space]


def space_of(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def test_a_site_of_containers_is_made_nowhere_else(state: Path, cache: Path) -> None:
    with pytest.raises(ConfigurationError, match="changes /etc"):
        containers.ContainerSite(state / "site", cache, print)
    assert not (state / "site").exists()
