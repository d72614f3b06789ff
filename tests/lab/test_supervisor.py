"""The supervisor and the end of a lab, with real small processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError
from distgate.waiting import Deadline, wait_for
from lab import teardown
from lab.servers import supervisor
from lab.servers.ports import free_ports, is_free
from lab.servers.process_table import MARKER, identify, members
from lab.servers.service import Health, Service, save_service, service_log, wanted_services

SLEEP = ("sleep", "600")
SOON = 20.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    path = (tmp_path / "lab").resolve()
    path.mkdir()
    yield path
    teardown.down(path, lambda _: None)


def start(state: Path, *wanted: Service) -> None:
    for one in wanted:
        save_service(state, one)
    supervisor.start_supervisor(state)
    supervisor.wait_healthy(state, [one.name for one in wanted], Deadline(SOON))


def pid_of(state: Path, name: str) -> int | None:
    return next(one.pid for one in supervisor.status(state) if one.name == name)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", code)


def test_a_service_that_was_killed_is_started_again_and_the_log_says_so(state: Path) -> None:
    start(state, Service("sleeper", SLEEP))
    first = pid_of(state, "sleeper")
    assert supervisor.kill(state, "sleeper", signal.SIGKILL)
    wait_for("the service to be back", lambda: pid_of(state, "sleeper") not in (None, first), SOON)
    [status] = supervisor.status(state)
    assert status.restarts == 1
    said = service_log(state, "supervisor").read_text()
    assert f"sleeper (pid {first}) was ended by SIGKILL" in said


def test_a_service_waits_until_those_it_comes_after_are_healthy(state: Path) -> None:
    [port] = free_ports(1)
    late = f"import socket,time; time.sleep(1); s=socket.create_server(('127.0.0.1',{port})); time.sleep(600)"
    server = Service("server", python(late), health=Health("tcp", f"127.0.0.1:{port}"))
    client = python(f"import socket,time; socket.create_connection(('127.0.0.1',{port})); time.sleep(600)")
    start(state, Service("client", client, after=("server",)), server)
    assert [one.name for one in supervisor.status(state)] == ["server", "client"]
    assert pid_of(state, "client") is not None
    assert [one.restarts for one in supervisor.status(state)] == [0, 0]


def test_services_that_wait_for_each_other_are_refused(state: Path) -> None:
    save_service(state, Service("hen", SLEEP, after=("egg",)))
    with pytest.raises(ConfigurationError, match="egg, hen"):
        save_service(state, Service("egg", SLEEP, after=("hen",)))
    assert [one.name for one in wanted_services(state)] == ["hen"]


def test_a_program_that_does_not_exist_is_reported_and_harms_no_other_service(state: Path) -> None:
    save_service(state, Service("broken", ("no-such-program-anywhere",)))
    start(state, Service("sleeper", SLEEP))
    log = service_log(state, "supervisor")
    wait_for("the report", lambda: "broken cannot start" in log.read_text(), SOON)
    assert pid_of(state, "sleeper") is not None


def test_services_outlive_their_supervisor_and_the_next_one_takes_them_over(state: Path) -> None:
    start(state, Service("sleeper", SLEEP))
    before = pid_of(state, "sleeper")
    running = supervisor.supervisor_of(state)
    assert running
    assert running.signal(signal.SIGKILL)
    wait_for("the supervisor to die", lambda: not running.alive, SOON)
    supervisor.start_supervisor(state)
    assert pid_of(state, "sleeper") == before
    supervisor.kill(state, "sleeper")
    wait_for("the service to be back", lambda: pid_of(state, "sleeper") not in (None, before), SOON)


def test_a_held_service_rests_until_it_is_released(state: Path) -> None:
    start(state, Service("sleeper", SLEEP))
    supervisor.hold(state, "sleeper")
    log = service_log(state, "supervisor")
    wait_for("the supervisor to notice", lambda: "it is held" in log.read_text(), SOON)
    assert pid_of(state, "sleeper") is None
    supervisor.release(state, "sleeper")
    supervisor.wait_healthy(state, ["sleeper"], Deadline(SOON))


def test_a_restart_gives_a_new_process(state: Path) -> None:
    start(state, Service("sleeper", SLEEP))
    before = pid_of(state, "sleeper")
    supervisor.restart(state, "sleeper")
    assert pid_of(state, "sleeper") not in (None, before)


def test_a_service_can_be_interrupted_although_the_lab_was_started_in_the_background(state: Path) -> None:
    # A shell without job control starts `command &` with SIGINT ignored, which children would inherit.
    save_service(state, Service("sleeper", SLEEP))
    code = f"from pathlib import Path; from lab.servers.supervisor import *; start_supervisor(Path({str(state)!r}))"
    subprocess.run(["sh", "-c", '"$0" -c "$1" & wait', sys.executable, code], check=True, timeout=60)
    supervisor.wait_healthy(state, ["sleeper"], Deadline(SOON))
    before = pid_of(state, "sleeper")
    assert supervisor.kill(state, "sleeper", signal.SIGINT)
    wait_for("another process", lambda: pid_of(state, "sleeper") not in (None, before), SOON)


def test_what_nobody_knows_by_name_is_an_error_that_lists_the_names(state: Path) -> None:
    save_service(state, Service("sleeper", SLEEP))
    with pytest.raises(ConfigurationError, match="no service relay") as caught:
        supervisor.kill(state, "relay")
    assert "sleeper" in caught.value.hint


def test_down_leaves_nothing_not_even_what_ignores_the_polite_signal_or_left_its_session(state: Path) -> None:
    deaf = "from signal import *; signal(SIGTERM, SIG_IGN); print('deaf', flush=True); import time; time.sleep(600)"
    parent = "import subprocess,time; subprocess.Popen(['sleep','601'], start_new_session=True); time.sleep(600)"
    start(state, Service("deaf", python(deaf), grace=0.5), Service("parent", python(parent), grace=0.5))
    wait_for("the deaf one to be deaf", lambda: "deaf" in service_log(state, "deaf").read_text(), SOON)
    wait_for("supervisor, two services, a grandchild", lambda: len(members(state)) == 4, SOON)
    pids = [process.pid for process in members(state)]
    teardown.down(state, lambda _: None)
    assert [pid for pid in pids if identify(pid)] == []
    assert teardown.leftovers(state) == []
    assert supervisor.status(state) == []


def test_down_ends_no_process_of_another_lab(state: Path, tmp_path: Path) -> None:
    other = (tmp_path / "lab-2").resolve()  # a name that begins with ours
    with subprocess.Popen(SLEEP, env={**os.environ, MARKER: str(other)}) as stranger:
        try:
            start(state, Service("sleeper", SLEEP))
            teardown.down(state, lambda _: None)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_down_works_after_the_starting_process_was_killed_half_way(state: Path) -> None:
    # It started a supervisor with a service, is starting more, and dies without having recorded all of it.
    code = f"""
import os, subprocess, time
from pathlib import Path
os.environ[{MARKER!r}] = {str(state)!r}
from lab.servers import supervisor
from lab.servers.service import Service, save_service
from distgate.process import run
state = Path({str(state)!r})
save_service(state, Service("sleeper", {SLEEP!r}))
supervisor.start_supervisor(state)
print("half", flush=True)
run(["sh", "-c", "sleep 602; true"], timeout=600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == "half\n"
        wait_for("supervisor, service, shell and its child", lambda: len(members(state)) == 4, SOON)
        starter.kill()
    teardown.down(state, lambda _: None)
    assert teardown.leftovers(state) == []


def test_down_ends_the_start_that_is_under_way(state: Path) -> None:
    with subprocess.Popen(SLEEP) as starter:
        own = identify(starter.pid)
        assert own
        teardown.record_starter(state, own)
        teardown.down(state, lambda _: None)
        assert starter.wait(SOON) == -signal.SIGTERM


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_down_unmounts_and_detaches_what_lies_below_the_state_directory(state: Path) -> None:
    inner = state / "a mount" / "inner"
    (state / "a mount").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lab", state / "a mount"], check=True)
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "lab", inner], check=True)
    image = state / "disk.raw"
    image.write_bytes(bytes(1 << 20))
    subprocess.run(["losetup", "--find", image], check=True)
    assert len(teardown.leftovers(state)) == 3
    teardown.down(state, lambda _: None)
    assert teardown.leftovers(state) == []


def test_a_process_is_not_mistaken_for_a_later_one_with_the_same_pid() -> None:
    own = identify(os.getpid())
    assert own
    assert own.alive
    later = type(own)(own.pid, own.started + 1)
    assert not later.alive
    assert not later.signal(signal.SIGKILL)


def test_free_ports_are_different_and_nobody_listens_on_them() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) for port in ports)


def test_the_state_directory_keeps_passwords_from_other_people(state: Path) -> None:
    save_service(state, Service("sleeper", SLEEP, environment={"URL": "amqp://user:secret@host/"}))
    assert (state / "services" / "sleeper.json").stat().st_mode & 0o077 == 0


def test_removing_a_lab_removes_its_directory(state: Path) -> None:
    start(state, Service("sleeper", SLEEP))
    teardown.down(state, lambda _: None, remove=True)
    assert not state.exists()
