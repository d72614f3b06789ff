"""A suite reaches the guest and nothing else: not the runner, nor our credentials, nor time without end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError
from distgate.guests.host import LibvirtGuest
from distgate.guests.watchdog import start_time
from distgate.runners.ansible import AnsibleSuites, inventory_of
from distgate.testing.verdict import SuiteRun, judge
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


def test_a_suite_that_goes_on_without_the_guest_is_judged_by_what_it_says(
    tmp_path: Path, absent: LibvirtGuest
) -> None:
    ignored = "  - command: 'true'\n    ignore_unreachable: true\n"
    fails = "  - debug: {msg: \"{{ lookup('pipe', 'echo FAIL one > $TEST_ARTIFACTS/test.log') }}\"}\n"
    seen = run(tmp_path, absent, play(ignored + fails))
    assert (seen.tasks["unreachable"], seen.unreachable) == (1, False)
    assert (judge(seen).verdict, judge(seen).blame) == ("FAIL", "package")


#: What ansible-playbook does not take, and a part of its words.
REFUSED = {
    "a role": ("  roles: [their-own-role]\n", "the role 'their-own-role' was not found"),
    "a role that a task includes": ("  tasks: [{include_role: {name: theirs}}]\n", "the role 'theirs' was not found"),
    "a file": ("  tasks: [{import_tasks: none.yml}]\n", "tests/none.yml"),
    "a file that a task includes": ("  tasks: [{include_tasks: none.yml}]\n", "tests/none.yml"),
    "a variable": ("  tasks: [{debug: {msg: '{{ nosuch }}'}}]\n", "'nosuch' is undefined"),
    "a keyword": ("  rols: []\n", "could not parse the playbook"),
}


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_a_playbook_that_ansible_does_not_take_is_the_tests_fault_and_the_reason_named(
    text: str, words: str, tmp_path: Path, absent: LibvirtGuest
) -> None:
    head = "- hosts: localhost\n  gather_facts: false\n  tags: [classic]\n"
    seen = judge(run(tmp_path, absent, head + text))
    assert (seen.verdict, seen.blame, seen.retryable) == ("ERROR", "tests", False)
    assert words in seen.evidence


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
    assert {name: list(group["hosts"]) for name, group in groups.items()} == {
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


def said_in(tmp_path: Path, name: str) -> list[str]:
    return (tmp_path / "artifacts" / name).read_text().splitlines()


FORGE = """
runner=$(grep -l ansible_child /proc/[0-9]*/cmdline | grep -v -e self -e "/1/" | head -n 1)
runner=${runner%/cmdline}
test -n "$runner" && echo found
ls "$runner/fd" || echo closed
cat "$runner/environ" || echo hidden
for number in $(seq 3 30); do echo "end 0" > "$runner/fd/$number"; done
"""


def test_what_ends_in_a_failure_cannot_be_made_a_success_from_another_process(
    tmp_path: Path, absent: LibvirtGuest
) -> None:
    playbook = suite(tmp_path, play("  - debug: {msg: \"{{ lookup('pipe', 'sh forge.sh; true') }}\"}\n  - fail:\n"))
    (tmp_path / "tests" / "forge.sh").write_text(FORGE)
    seen = AnsibleSuites().run(playbook, absent, tmp_path / "artifacts", {}, 120)
    assert all(word in said(tmp_path) for word in ("found", "closed", "hidden"))
    assert (seen.returncode, seen.tasks) == (2, {"ok": 1, "failed": 1})


def test_a_suite_that_kills_what_runs_it_is_no_success(tmp_path: Path, absent: LibvirtGuest) -> None:
    seen = run(tmp_path, absent, play("  - debug: {msg: \"{{ lookup('pipe', 'kill -9 -1; true') }}\"}\n"))
    assert seen.returncode == 137
    assert judge(seen).verdict == "ERROR"


def test_a_suite_works_on_a_copy_of_its_checkout(tmp_path: Path, absent: LibvirtGuest) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "bash.spec").write_text("Name: bash\n")
    change = "cat ../bash.spec; echo changed > ../bash.spec; echo changed > tests_one.yml"
    run(tmp_path, absent, play(f"  - debug: {{msg: \"{{{{ lookup('pipe', '{change}') }}}}\"}}\n"))
    assert "Name: bash" in said(tmp_path)
    assert (tmp_path / "bash.spec").read_text() == "Name: bash\n"
    assert "changed" not in (tmp_path / "tests" / "tests_one.yml").read_text().splitlines()


def test_an_old_playbook_runs_and_what_was_rewritten_is_told(tmp_path: Path, absent: LibvirtGuest) -> None:
    text = "- hosts: localhost\n  gather_facts: false\n  tags: [classic]\n  vars:\n  - word: told\n  tasks:\n"
    seen = run(tmp_path, absent, f"{text}  - include: more.yml\n    ignore_errors: true\n  - debug: {{var: word}}\n")
    assert said_in(tmp_path, "rewrites.txt") == [
        "tests_one.yml:5: vars is a mapping, no list",
        "tests_one.yml:7: include is now import_tasks",
    ]
    assert seen.returncode != 0  # there is no more.yml
    assert "include: more.yml" in (tmp_path / "tests" / "tests_one.yml").read_text()


def test_an_old_construct_without_a_successor_is_the_tests_fault_and_its_line_is_told(
    tmp_path: Path, absent: LibvirtGuest
) -> None:
    seen = run(tmp_path, absent, play("  - include: more.yml a=1\n"))
    assert "ERROR! tests_one.yml:5: include with arguments" in said(tmp_path)
    assert (judge(seen).verdict, judge(seen).blame) == ("ERROR", "tests")


#: tests/inventory, whether it is executable, and what the notes say of it.
INVENTORIES = {
    "a runner's own host": ("localhost ansible_connection=local colour=red\n", False, "variable taken: colour"),
    "groups": ("[others]\na colour=red\n[more:children]\nothers\n", False, "group taken: more"),
    "a script": ('#!/bin/sh\necho \'{"g": {"hosts": ["h"], "vars": {"colour": "red"}}}\'\n', True, "group taken: g"),
    "a script that fails": ("#!/bin/sh\necho no qemu >&2; exit 1\n", True, "tests/inventory is not used: "),
    "a script that names nobody": ("#!/bin/sh\necho '{}'\n", True, "tests/inventory is not used: "),
    "nonsense": ("\x00\x01", False, "tests/inventory is not used: "),
}


@pytest.mark.parametrize("case", INVENTORIES)
def test_an_inventory_of_the_package_gives_groups_and_variables_but_no_host(
    tmp_path: Path, absent: LibvirtGuest, case: str
) -> None:
    content, executable, note = INVENTORIES[case]
    playbook = suite(
        tmp_path, play("  - debug: {msg: \"{{ ansible_connection }} {{ colour | default('none') }}\"}\n")
    )
    inventory = playbook.with_name("inventory")
    inventory.write_text(content)
    inventory.chmod(0o755 if executable else 0o644)
    seen = AnsibleSuites().run(playbook, absent, tmp_path / "artifacts", {}, 120)
    notes = said_in(tmp_path, "inventory.txt")
    assert any(line.startswith(note) for line in notes), (notes, said(tmp_path))
    assert ("ssh red" if "taken" in note else "ssh none") in said(tmp_path)
    assert "guest-absent" in said(tmp_path)
    assert seen.tasks == {"ok": 1}


def test_the_ansible_of_a_branch_is_the_one_that_a_setting_names(tmp_path: Path, absent: LibvirtGuest) -> None:
    bins = tmp_path / "old" / "bin"
    bins.mkdir(parents=True)
    (bins / "ansible-playbook").write_text("#!/bin/sh\necho an old ansible\n")
    (bins / "ansible-playbook").chmod(0o755)
    playbook = suite(tmp_path, play("  - debug:\n"))
    for branch, wanted in (("f41", False), ("epel8", True)):
        place = tmp_path / branch
        AnsibleSuites(ansible={"epel*": bins}).run(playbook, absent, place, {"git_branch": branch}, 120)
        assert ("an old ansible" in (place / "ansible.txt").read_text()) is wanted
    with pytest.raises(ConfigurationError, match="no ansible-playbook"):
        AnsibleSuites(ansible={"*": tmp_path}).run(playbook, absent, tmp_path / "none", {}, 120)


def test_roles_of_a_site_go_before_our_own(tmp_path: Path, absent: LibvirtGuest) -> None:
    role = tmp_path / "site" / "standard-test-basic" / "tasks"
    role.mkdir(parents=True)
    (role / "main.yml").write_text("- debug: {msg: the site's own role}\n")
    text = "- hosts: localhost\n  gather_facts: false\n  tags: [classic]\n  roles: [standard-test-basic]\n"
    playbook = suite(tmp_path, text)
    AnsibleSuites(roles_path=[tmp_path / "site"]).run(playbook, absent, tmp_path / "artifacts", {}, 120)
    assert "the site's own role" in said(tmp_path)


WORKER = """
import sys
from pathlib import Path
from distgate.runners.ansible import AnsibleSuites
from distgate.guests.host import LibvirtGuest
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
