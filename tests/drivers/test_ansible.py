"""A suite reaches the guest and nothing else: not the runner, nor our credentials, nor time without end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distgate.drivers.ansible import AnsibleSuites, inventory_of
from distgate.drivers.base import SuiteRun
from distgate.drivers.guest_watchdog import start_time
from distgate.drivers.guests import LibvirtGuest
from distgate.errors import ConfigurationError
from distgate.verdict import judge
from distgate.waiting import wait_for


@pytest.fixture
def absent(tmp_path: Path) -> LibvirtGuest:
    """A guest on a port that nobody listens on; enough for plays that only work on the controller."""
    key = tmp_path / "key"
    key.write_text("no key")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return LibvirtGuest("guest-absent", taken.getsockname()[1], key, tmp_path / "console.log")


def suite(tmp_path: Path, text: str) -> Path:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "tests_one.yml").write_text(text)
    return tests / "tests_one.yml"


def play(tasks: str, hosts: str = "localhost") -> str:
    return f"- hosts: {hosts}\n  gather_facts: false\n  tags: [classic]\n  tasks:\n{tasks}"


def run(tmp_path: Path, guest: LibvirtGuest, text: str, timeout: float = 120) -> SuiteRun:
    suites = AnsibleSuites([tmp_path / "the image.qcow2"])
    return suites.run(suite(tmp_path, text), guest, tmp_path / "artifacts", {"git_branch": "f41"}, timeout)


def said(tmp_path: Path) -> str:
    return (tmp_path / "artifacts" / "ansible.txt").read_text()


def test_a_guest_that_does_not_answer_is_unreachable_and_not_a_failed_test(
    tmp_path: Path, absent: LibvirtGuest
) -> None:
    seen = run(tmp_path, absent, play("  - command: 'true'\n"))
    assert seen.unreachable
    assert judge(seen).blame == "infrastructure"


def test_the_interface_passes_subjects_artifacts_and_branch_and_none_of_our_environment(
    tmp_path: Path, absent: LibvirtGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    wanted = "{{ git_branch }}|{{ subjects }}|{{ artifacts }}|{{ lookup('env', 'TEST_SUBJECTS') }}"
    words = f"{wanted}|{{{{ lookup('env', 'TEST_ARTIFACTS') }}}}|{{{{ lookup('env', 'PREFECT_API_KEY') }}}}|"
    whole = "  - debug: {msg: \"{{ lookup('pipe', 'env') }}\"}\n"
    seen = run(tmp_path, absent, play(f'  - debug: {{msg: "{words}"}}\n{whole}'))
    image, artifacts = f"'{tmp_path}/the image.qcow2'", tmp_path / "artifacts"
    assert f"f41|{image}|{artifacts}|{image}|{artifacts}||" in said(tmp_path)
    assert "hunter2" not in said(tmp_path)
    assert (seen.returncode, seen.tasks) == (0, {"ok": 2})
    assert (artifacts / "ansible.log").exists()


@pytest.mark.parametrize("hosts", ["127.0.0.1", "'::1'", "nobody", "all:!localhost"])
def test_no_host_pattern_leads_to_the_machine_that_runs_ansible(
    tmp_path: Path, absent: LibvirtGuest, hosts: str
) -> None:
    mark = tmp_path / "was here"
    seen = run(tmp_path, absent, play(f"  - shell: touch '{mark}'\n", hosts))
    assert not mark.exists()
    assert judge(seen).verdict in ("NOTHING_RUN", "ERROR")


def test_a_suite_sees_no_process_of_ours_and_writes_only_where_it_may(tmp_path: Path, absent: LibvirtGuest) -> None:
    look = "  - debug: {msg: \"process 1 is {{ lookup('pipe', 'cat /proc/1/comm') }}\"}\n"
    write = f"  - debug: {{msg: \"{{{{ lookup('pipe', 'touch {tmp_path}/mark; echo tried') }}}}\"}}\n"
    run(tmp_path, absent, play(look + write))
    assert "process 1 is bwrap" in said(tmp_path)
    assert "tried" in said(tmp_path)
    assert not (tmp_path / "mark").exists()


def test_a_suite_has_no_right_of_root_on_this_side(tmp_path: Path, absent: LibvirtGuest) -> None:
    attempts = f"mount -o remount,bind,rw / ; touch {tmp_path}/mark ; mknod {tmp_path}/tests/disk b 8 0"
    look = "grep -c CapEff:.0000000000000000 /proc/self/status"
    run(tmp_path, absent, play(f"  - debug: {{msg: \"{{{{ lookup('pipe', '{attempts} ; {look}') }}}} is none\"}}\n"))
    assert "1 is none" in said(tmp_path)
    assert not (tmp_path / "mark").exists()
    assert not (tmp_path / "tests" / "disk").exists()


def test_every_group_that_suites_address_holds_the_guest_alone(absent: LibvirtGuest) -> None:
    groups = inventory_of(absent)
    assert {name: list(group["hosts"]) for name, group in groups.items()} == {  # type: ignore[index]
        "localhost": ["guest-absent"],
        "subjects": ["guest-absent"],
    }


def test_tasks_of_another_tag_are_not_run(tmp_path: Path, absent: LibvirtGuest) -> None:
    seen = run(tmp_path, absent, play("  - debug: {msg: ran anyway}\n").replace("classic", "atomic"))
    assert "ran anyway" not in said(tmp_path)
    assert judge(seen).verdict == "NOTHING_RUN"


def test_a_suite_that_hangs_is_killed_at_its_deadline(tmp_path: Path, absent: LibvirtGuest) -> None:
    seen = run(tmp_path, absent, play("  - pause: {minutes: 30}\n"), timeout=4)
    assert seen.timed_out
    assert judge(seen).verdict == "ERROR"


def test_a_playbook_that_ansible_cannot_parse_is_the_tests_fault(tmp_path: Path, absent: LibvirtGuest) -> None:
    seen = run(tmp_path, absent, "- hosts: localhost\n\ttasks: []\n")
    assert (judge(seen).verdict, judge(seen).blame) == ("ERROR", "tests")


def test_a_configuration_file_of_the_package_does_not_bring_its_own_inventory(
    tmp_path: Path, absent: LibvirtGuest
) -> None:
    text = play("  - debug: {msg: \"{{ groups['all'] }}\"}\n")
    (suite(tmp_path, text).parent / "ansible.cfg").write_text("[defaults]\ninventory = elsewhere,\n")
    playbook = tmp_path / "tests" / "tests_one.yml"
    AnsibleSuites().run(playbook, absent, tmp_path / "artifacts", {}, 120)
    assert "elsewhere" not in said(tmp_path)
    assert "guest-absent" in said(tmp_path)


def test_an_artifacts_directory_that_holds_something_is_refused(tmp_path: Path, absent: LibvirtGuest) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "test.log").write_text("PASS of yesterday")
    with pytest.raises(ConfigurationError, match="not empty"):
        run(tmp_path, absent, play("  - debug:\n"))


WORKER = """
import sys
from pathlib import Path
from distgate.drivers.ansible import AnsibleSuites
from distgate.drivers.guests import LibvirtGuest
here = Path(sys.argv[1])
guest = LibvirtGuest("guest-absent", 9, here / "key", here / "console.log")
AnsibleSuites(scratch=here).run(here / "tests" / "tests_one.yml", guest, here / "artifacts", {}, 600)
"""


def test_a_worker_killed_by_kill_9_takes_its_suite_along(tmp_path: Path) -> None:
    suite(tmp_path, play("  - pause: {minutes: 30}\n"))
    (tmp_path / "key").write_text("no key")
    worker = subprocess.Popen([sys.executable, "-c", WORKER, tmp_path])
    try:
        running = wait_for("ansible-playbook", lambda: suites_of(worker.pid) or None, 60)
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    wait_for("the end of the suite", lambda: not any(map(alive, running)), 30)


def suites_of(pid: int) -> list[int]:
    """The ansible processes below a process: none until ansible-playbook itself runs."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(word) for listed in lists for word in listed.read_text().split()]
    below = [found for child in children for found in [child, *suites_of(child)]]
    started = any(b"ansible-playbook" in Path(f"/proc/{child}/cmdline").read_bytes() for child in below)
    return below if started else []


def alive(pid: int) -> bool:
    return start_time(pid) != ""
