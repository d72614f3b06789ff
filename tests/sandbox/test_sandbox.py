"""A program in a sandbox sees what is listed, reaches the guest's port, uses up what it may, and leaves nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.sandbox.artifacts import LISTING, harmless
from distgate.sandbox.sandbox import MIB, Limits, Sandbox, SandboxRun, python_paths
from distgate.waiting import wait_for

ENV = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Room:
    """A place with a checkout, a directory for artifacts and a log."""

    path: Path

    @property
    def log(self) -> str:
        return (self.path / "log").read_text()

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def dropped(self) -> str:
        return (self.artifacts / LISTING).read_text()

    def run(
        self, script: str, *, timeout: float = 60, guest: Port | None = None, limits: Limits | None = None
    ) -> SandboxRun:
        return Sandbox(limits).run(
            ["bash", "-c", script],
            env=ENV | {"OUT": str(self.artifacts)},
            timeout=timeout,
            log_to=self.path / "log",
            copies=[self.path / "checkout"],
            artifacts=self.artifacts,
            guest=guest,
            cwd=self.path / "checkout",
        )


@dataclass(frozen=True)
class Port:
    """What a guest is to a sandbox."""

    port: int


@pytest.fixture
def room(tmp_path: Path) -> Room:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    (tmp_path / "checkout" / ".git" / "config").write_text("https://user:secret@example.org")
    (tmp_path / "checkout" / "spec").write_text("original")
    (tmp_path / "ledger.db").write_text("secret")
    return Room(tmp_path)


@pytest.fixture
def service() -> Iterator[int]:
    """A loopback service of this host that says hello to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                with link:
                    link.sendall(b"hello\n")

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_program_ends_with_its_own_status_and_its_output_is_in_the_log(room: Room) -> None:
    ended = room.run("echo out; echo err >&2; echo said >&$REPORT_FD; exit 7")
    assert (ended.returncode, ended.timed_out, ended.report) == (7, False, "said\n")
    assert room.log == "out\nerr\n"


def test_what_lies_beside_the_python_environment_is_not_shown(tmp_path: Path) -> None:
    for name in ("bin", "lib/python3.11"):
        (tmp_path / "service" / name).mkdir(parents=True)
    (tmp_path / "service/bin/python").symlink_to("/usr/bin/python3")
    (tmp_path / "service/pyvenv.cfg").write_text("home = /usr/bin\n")
    (tmp_path / "service/distgate-ledger.db").write_text("secret")
    shown = [path for path in python_paths(tmp_path / "service/bin/python") if path.is_relative_to(tmp_path)]
    assert [path.name for path in shown] == ["bin", "lib", "pyvenv.cfg"]


def test_a_program_is_no_user_of_this_host_and_has_no_right_nor_a_way_to_get_one(room: Room) -> None:
    room.run(
        "id -u; grep -E '^(Cap|NoNew)' /proc/self/status; unshare --user true || echo no namespace; ls /proc/1/ns"
    )
    user, *said = room.log.splitlines()
    assert int(user) == os.geteuid() if os.geteuid() else 61184 <= int(user) <= 65519
    assert [line.split() for line in said[:6]] == [
        *([f"Cap{kind}:", "0" * 16] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")),
        ["NoNewPrivs:", "1"],
    ]
    assert "no namespace" in said


def test_the_environment_is_what_was_listed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    room.run("env -u PWD -u SHLVL -u _ -u OLDPWD; for one in /proc/[0-9]*; do tr '\\0' '\\n' < $one/environ; done")
    names = {line.split("=")[0] for line in room.log.splitlines()}
    assert names <= {"PATH", "LANG", "OUT", "REPORT_FD", "PWD", "SHLVL", "_"}
    assert "hunter2" not in room.log


HIDDEN = ["/root", "/home", "/etc/shadow", "/etc/ssh", "/var/run", "/run", "/sys", "/boot", "/var/lib", "/srv"]


def test_nothing_of_this_host_is_there_but_its_programs(room: Room) -> None:
    hidden = [*HIDDEN, str(room.path / "ledger.db"), str(Path(__file__).parent), str(room.path / "log")]
    room.run(f"for one in {' '.join(hidden)}; do test -e $one && echo $one; done; cat {hidden[-3]}; true")
    assert "secret" not in room.log
    assert [line for line in room.log.splitlines() if line in hidden] == []


def test_a_checkout_is_a_copy_without_the_clones_own_files(room: Room) -> None:
    room.run("cat spec; ls -A; echo changed > spec; rm -rf .git; touch new; mkdir more")
    assert room.log == "originalspec\n"
    assert (room.path / "checkout" / "spec").read_text() == "original"
    assert sorted(path.name for path in (room.path / "checkout").iterdir()) == [".git", "spec"]


def test_nothing_can_be_written_but_the_copies_the_artifacts_and_tmp(room: Room) -> None:
    fixed = f"/ /usr /etc /dev /proc/sys/kernel {Path(sys.prefix)} {Path(__file__).parents[2]}"
    places = f"{fixed} {room.path} /tmp"
    room.run(f"for one in {places}; do touch $one/mark 2> /dev/null && echo $one; done")
    assert not set(room.log.split()) & set(fixed.split())
    # These are there, on a file system that ends with the sandbox.
    assert not (room.path / "mark").exists()
    assert not Path("/tmp/mark").exists()


def test_the_guests_port_is_the_only_service_there_is(room: Room, service: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ask = "read -r -t 5 said < /dev/tcp/127.0.0.1/{} && echo $said || echo nothing"
        room.run(
            f"{ask.format(service)}; {ask.format(port)}; ls /sys/class/net 2>&1 | tail -n 1", guest=Port(service)
        )
        other.settimeout(0.1)
        with pytest.raises(TimeoutError):
            other.accept()
    assert room.log.splitlines()[0] == "hello"
    assert "nothing" in room.log


def test_without_a_guest_there_is_no_service_at_all(room: Room, service: int) -> None:
    room.run(f"read -r -t 5 said < /dev/tcp/127.0.0.1/{service} && echo $said || echo nothing")
    assert room.log.endswith("nothing\n")


def test_a_program_that_opens_connections_without_end_is_cut_off_and_harms_nobody(room: Room, service: int) -> None:
    script = f"for i in $(seq 300); do exec {{fd}}<>/dev/tcp/127.0.0.1/{service} || break; done; echo done"
    assert room.run(script, guest=Port(service)).returncode == 0
    assert "done" in room.log


def test_a_fork_bomb_ends_at_the_number_of_processes_and_at_the_deadline(room: Room) -> None:
    ended = room.run(":() { : | : & }; :; sleep 100", timeout=3, limits=Limits(processes=64))
    assert ended.timed_out
    assert "Resource temporarily unavailable" in room.log


def test_memory_is_bounded_for_each_process(room: Room) -> None:
    room.run("python3 -c 'bytearray(1 << 30)' 2>&1 | tail -n 1", limits=Limits(memory=512 * MIB))
    assert "MemoryError" in room.log


def test_a_full_disk_is_the_sandboxes_own(room: Room) -> None:
    script = "for one in $OUT /tmp /dev/shm .; do head -c 100M /dev/zero > $one/big; done; ls $OUT"
    room.run(script, limits=Limits(artifacts=4 * MIB, scratch=4 * MIB))
    assert room.log.count("No space left on device") == 4
    assert (room.artifacts / "big").stat().st_size <= 4 * MIB


def test_a_gigabyte_of_output_leaves_its_beginning_its_end_and_a_count(room: Room) -> None:
    script = "echo begin; head -c 1G /dev/zero | tr '\\0' x; echo; echo the end"
    ended = room.run(script, timeout=120, limits=Limits(log=1 * MIB))
    assert ended.log_dropped > 1000 * MIB
    assert (room.path / "log").stat().st_size < 2 * MIB
    assert room.log.startswith("begin\n")
    assert room.log.endswith("the end\n")
    assert f"[distgate: {ended.log_dropped} bytes of output were dropped here]" in room.log


def test_what_a_terminal_would_obey_and_what_is_no_text_never_reaches_the_log(room: Room) -> None:
    room.run("printf 'a\\033[2Jb\\033]0;title\\007c\\r\\n\\377d\\0e\\n'; printf 'last \\342\\202\\254'")
    assert room.log == "abc\n\ufffdde\nlast €"


PLANTED = """
cd "$OUT"
ln -s /etc/passwd absolute; ln -s ../../../../../../../etc/passwd relative; ln -s . loop; ln -s /root dir
mkfifo pipe; mknod disk b 8 0 2> /dev/null
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
echo fine > fine.log; ln fine.log hard.log
printf x > "$(printf 'new\\nline \\033[31m\\377')"; printf y > '..log'; mkdir -p sub/deeper; echo z > sub/deeper/z
mkdir many; for i in $(seq 40); do : > many/$i; done
truncate -s 1T sparse 2> /dev/null || truncate -s 200M sparse
echo mine > dropped.txt
"""


def test_only_regular_files_with_harmless_names_come_out_and_the_rest_is_listed(room: Room) -> None:
    room.run(PLANTED, limits=Limits(artifacts=16 * MIB, artifact_files=60))
    found = [path for path in room.artifacts.rglob("*") if not path.is_dir()]
    assert not [path for path in found if path.is_symlink() or not path.is_file()]
    assert {path.stat().st_nlink for path in found} == {1}
    assert {path.stat().st_uid for path in found} == {os.geteuid()}
    names = {path.relative_to(room.artifacts).as_posix() for path in found}
    assert {"fine.log", "hard.log", "new_line_%FF", "..log", "sub/deeper/z"} <= names
    assert all(name.isprintable() for name in names)
    dropped = room.dropped
    for name in ("absolute", "relative", "loop", "dir", "pipe", "sock", "sparse"):
        assert f"{name}: " in dropped
        assert name not in names


def test_files_beyond_the_limit_stay_behind_and_are_counted(room: Room) -> None:
    ended = room.run("cd $OUT; for i in $(seq 1000); do : > $i; done", limits=Limits(artifact_files=100))
    assert len(list(room.artifacts.iterdir())) <= 101
    assert ended.returncode != 0


NAMES = {
    "plain.log": "plain.log",
    ".": "_.",
    "..": "_..",
    "a b\tc": "a_b_c",
    "a\udcffb": "a%FFb",
    "\x1b[31mred": "red",
    "\x07": "_",
    "x" * 300: "x" * 200,
    "ü" * 150: "ü" * 100,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_made_harmless(name: str) -> None:
    assert harmless(name) == NAMES[name]


def test_a_file_of_ours_is_never_replaced(room: Room) -> None:
    (room.artifacts / "log.txt").write_text("ours")
    room.run("echo theirs > $OUT/log.txt")
    assert (room.artifacts / "log.txt").read_text() == "ours"
    assert "log.txt: the name is taken" in room.dropped


def test_what_a_program_leaves_running_ends_with_it(room: Room) -> None:
    room.run("setsid nohup sleep 4711 > /dev/null 2>&1 & sleep 0.2; echo started")
    assert "started" in room.log
    assert not running("4711")


def test_a_program_is_killed_at_its_deadline_with_all_that_it_started(room: Room) -> None:
    ended = room.run("echo kept > $OUT/kept.log; setsid sleep 4712 & sleep 4712", timeout=2)
    assert (ended.timed_out, ended.returncode) == (True, 137)
    assert (room.artifacts / "kept.log").read_text() == "kept\n"
    assert not running("4712")


def test_a_path_that_is_not_there_is_a_mistake_of_the_caller(room: Room) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        Sandbox().run(["true"], env=ENV, timeout=10, log_to=room.path / "log", copies=[room.path / "none"])


def test_a_program_that_does_not_exist_is_told_from_one_that_failed(room: Room) -> None:
    assert room.run("exit 127").returncode == 127
    with pytest.raises(InfrastructureError, match="set up"):
        Sandbox().run(["true"], env=ENV, timeout=10, log_to=room.path / "log", cwd=room.path / "nowhere")


WORKER = """
import sys
from pathlib import Path
from distgate.sandbox.sandbox import Sandbox
Sandbox().run(["sleep", "4713"], env={"PATH": "/usr/bin:/bin"}, timeout=600, log_to=Path(sys.argv[1]) / "log")
"""


def test_a_worker_killed_by_kill_9_leaves_no_process_and_no_mount(room: Room) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    worker = subprocess.Popen([sys.executable, "-c", WORKER, room.path])
    try:
        wait_for("the program", lambda: running("4713"), 60)
    finally:
        worker.kill()
        worker.wait()
    wait_for("its end", lambda: not running("4713"), 30)
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="the whole file runs as an ordinary user already")
def test_an_ordinary_user_has_the_same_sandbox(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from distgate.sandbox.sandbox import Sandbox; print(Sandbox().run("
        "['bash', '-c', 'id -u; ls /tmp; unshare --user true || echo none'], env={'PATH': '/usr/bin:/bin'}, "
        "timeout=30, log_to=Path(sys.argv[1]) / 'log'))"
    )
    place = Path(f"/var/tmp/distgate-test-{os.getpid()}")
    place.mkdir(mode=0o777)
    try:
        os.chown(place, 54321, 54321)
        ended = subprocess.run(
            [sys.executable, "-c", script, place],
            user=54321,
            group=54321,
            extra_groups=[],
            env={"PATH": os.environ["PATH"], "HOME": str(place), "TMPDIR": str(place)},
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "returncode=0" in ended.stdout, ended.stderr
        assert (place / "log").read_text().splitlines()[0] == "54321"
        assert "none" in (place / "log").read_text()
    finally:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def running(word: str) -> bool:
    """Whether a process here has ``word`` among its arguments and is no zombie."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:1] == [b"sleep"] and word.encode() in words:
            return True
    return False
