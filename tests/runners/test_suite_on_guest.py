"""One real boot: what a guest allows, and suites that run in it from their playbooks to their verdicts."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.errors import InfrastructureError
from distgate.guests import ssh
from distgate.guests.base import Guest
from distgate.guests.host import LibvirtGuests
from distgate.images.base import BaseImage
from distgate.images.smoke import INSTALLED_COMMAND, KERNEL_COMMAND
from distgate.images.smoke import judge as judge_smoke
from distgate.rpm.nevra import Nevra
from distgate.runners.ansible import AnsibleSuites
from distgate.sandbox.sandbox import MIB, Limits
from distgate.testing.verdict import judge
from distgate.text import printable

pytestmark = pytest.mark.guest

SUITE = """\
- hosts: localhost
  gather_facts: false
  tags: [classic]
  vars:
    artifacts: "{{ lookup('env', 'TEST_ARTIFACTS') | default('./artifacts', true) }}"
  tasks:
  - name: Test the shell
    shell: |
      cd /tmp; test -n "$BASH_VERSION" &> /dev/null && result=pass || result=fail
      printf 'results:\\n- {test: bash, result: %s}\\n- {test: false, result: fail, logs: [test.log]}\\n' $result \\
        > results.yml
      printf 'PASS bash\\nFAIL false\\n' > test.log
  - name: Fetch what it says
    fetch: {src: "/tmp/{{ item }}", dest: "{{ artifacts }}/", flat: true}
    loop: [results.yml, test.log]
"""


@pytest.fixture(scope="module")
def guest(base_image: BaseImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A running guest on the base image; several tests share its one boot."""
    work = tmp_path_factory.mktemp("guest")
    with LibvirtGuests(work).boot(base_image.path, base_image.ssh_key, work, 120) as running:
        yield running


def test_a_command_returns_its_status_and_both_outputs(guest: Guest) -> None:
    said = guest.run("echo out; printf '\\377err' >&2; exit 3", timeout=120)
    assert (said.returncode, said.stdout, said.stderr) == (3, "out\n", "\ufffderr")


def test_a_key_that_the_guest_does_not_know_is_our_fault(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="refuses the key") as refused:
        ssh.run(ssh.SshAddress(guest.port, tmp_path / "no-key"), "true", timeout=120)
    assert "Permission denied" in refused.value.evidence


def test_the_guest_reaches_nothing_outside_of_itself(guest: Guest) -> None:
    listening = guest.port  # of this host, which user-mode networking shows to guests as 10.0.2.2
    said = guest.run(f"timeout 10 bash -c ': < /dev/tcp/10.0.2.2/{listening}'", timeout=120)
    assert said.returncode != 0


def test_a_package_of_the_guest_is_found_installed_as_what_it_is(guest: Guest) -> None:
    lines = guest.run(INSTALLED_COMMAND, timeout=120).stdout.splitlines()
    kernel = guest.run(KERNEL_COMMAND, timeout=120).stdout
    bash = [package for package in map(Nevra.parse, lines) if package.name == "bash"]
    assert judge_smoke(bash, lines, kernel).passed


def test_a_suite_runs_in_the_guest_and_its_verdict_names_the_failing_test(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "tests.yml").write_text(SUITE)
    artifacts = tmp_path / "artifacts"
    seen = AnsibleSuites().run(tmp_path / "tests.yml", guest, artifacts, {"git_branch": "f41"}, timeout=600)
    verdict = judge(seen)
    assert (verdict.verdict, verdict.blame) == ("FAIL", "package"), verdict.evidence
    assert [(test.name, test.result) for test in verdict.tests] == [("bash", "pass"), ("false", "fail")]
    assert sorted(path.name for path in artifacts.iterdir()) == [
        "ansible.log",
        "ansible.txt",
        "results.yml",
        "test.log",
    ]


ROLES = """\
- hosts: localhost
  gather_facts: false
  tags: [classic]
  roles:
  - role: standard-test-basic
    tests:
    - good
    - bad: {run: "./runtest.sh x", save-files: [out]}
    - missing
    - here: {run: "echo $GREETING"}
    - late: {dir: ., run: "sleep 600", timeout: 2s}
    required_packages: [bash]
    environment: {GREETING: hello world}
  - role: standard-test-beakerlib
    tests: [{sound: {dir: bk}}, {broken: {dir: bk}}, {unfinished: {dir: bk}}, {silent: {dir: good}}]
"""
#: The part of beakerlib that the role relies on: a file of results in BEAKERLIB_DIR; its status says nothing.
BEAKERLIB = """\
rlJournalStart() { printf 'TESTRESULT_STATE=incomplete\\n' > "$BEAKERLIB_DIR/TestResults"; }
rlJournalEnd() {
    printf 'TESTRESULT_STATE=complete\\nTESTRESULT_RESULT_STRING=%s\\n' "$1" > "$BEAKERLIB_DIR/TestResults"
}
"""
RUNTEST = """\
#!/bin/bash
. /usr/bin/rhts-environment.sh || exit 1
. /usr/share/beakerlib/beakerlib.sh || exit 1
count=$(cat /var/tmp/count 2> /dev/null); echo "x$count" > /var/tmp/count
rlJournalStart
case $count in
    "") rlJournalEnd PASS ;;
    x) rlJournalEnd FAIL ;;
esac
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_our_roles_run_tests_in_the_guest_and_bring_results_logs_and_files(guest: Guest, tmp_path: Path) -> None:
    tests, artifacts = tmp_path / "tests", tmp_path / "artifacts"
    script(tests / "good/runtest.sh", "#!/bin/bash\necho fine\n")
    script(tests / "bad/runtest.sh", "#!/bin/bash\necho $1 > out\nexit 3\n")
    script(tests / "bk/runtest.sh", RUNTEST)
    (tests / "tests.yml").write_text(ROLES)
    # The stand-in belongs to a package, or the role would look for one.
    library = f"mkdir -p /usr/share/beakerlib; cat > /usr/share/beakerlib/beakerlib.sh <<'EOF'\n{BEAKERLIB}EOF\n"
    assert guest.run(library, timeout=120).returncode == 0
    seen = AnsibleSuites().run(tests / "tests.yml", guest, artifacts, {"git_branch": "f41"}, timeout=900)
    verdict = judge(seen)
    assert (seen.returncode, verdict.verdict) == (0, "FAIL"), (artifacts / "ansible.txt").read_text()
    assert {test.name: test.result for test in verdict.tests} == {
        "good": "pass",
        "bad": "fail",
        "missing": "error",
        "here": "pass",
        "late": "error",
        "sound": "pass",
        "broken": "fail",
        "unfinished": "error",
        "silent": "error",
    }
    logs = {test.name: (artifacts / test.logs[0]).read_text() for test in verdict.tests}
    assert (logs["good"], logs["here"]) == ("fine\n", "hello world\n")
    assert "killed after 2 s" in logs["late"]
    assert "no directory missing" in logs["missing"]
    assert "left no TestResults" in logs["silent"]
    assert (artifacts / "bad" / "out").read_text() == "x\n"


def test_a_package_that_the_guest_cannot_get_is_told_and_nothing_hangs(guest: Guest, tmp_path: Path) -> None:
    text = ROLES.split("  - role: standard-test-beakerlib")[0].replace("[bash]", "[bash, nosuch-package]")
    (tmp_path / "tests.yml").write_text(text)
    seen = AnsibleSuites().run(tmp_path / "tests.yml", guest, tmp_path / "artifacts", {}, timeout=600)
    said = (tmp_path / "artifacts" / "ansible.txt").read_text()
    assert seen.returncode == 2
    assert "required packages are missing: nosuch-package" in said


HOSTILE = """\
- hosts: localhost
  gather_facts: false
  tags: [classic]
  tasks:
  - raw: echo "the guest is $(uname -n)"
    register: said
  - debug: {msg: "{{ said.stdout }}"}
  - debug: {msg: "{{ lookup('pipe', 'yes flood | head -c 4M') }}"}
  - debug: {msg: "{{ lookup('pipe', 'bash hostile.sh > /dev/null 2>&1') }}"}
  - debug: {msg: "{{ lookup('pipe', 'bash bomb.sh > /dev/null 2>&1') }}"}
"""
LOOT = r"""
exec 5> "$TEST_ARTIFACTS/loot.txt"
env >&5
for one in /proc/[0-9]*; do cat "$one/environ" "$one/cmdline" "$one/maps" >&5; done
cat /root/.ssh/* /home/*/.ssh/* /etc/shadow @LEDGER@ @CHECKOUT@/../secret >&5
find / -xdev -name '*.db' >&5
for port in @SERVICE@ 5672 4200 8080; do
    timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && echo connected to $port >&5 && head -n 1 <&3 >&5"
    timeout 5 bash -c "exec 3<>/dev/tcp/10.0.2.2/$port && echo connected to $port >&5"
done
for place in / /usr /etc /dev /root @OUTSIDE@; do echo mark > "$place/mark"; done
echo changed > tests.yml; echo changed > @CHECKOUT@/spec; rm -rf @CHECKOUT@/*
runner=$(grep -l ansible_child /proc/[0-9]*/cmdline | grep -v -e self -e /1/ | head -n 1)
for fd in ${runner%cmdline}fd/*; do timeout 1 bash -c "echo 'end 0' > $fd"; done
setsid nohup sleep 4714 > /dev/null 2>&1 &
cd "$TEST_ARTIFACTS"
printf 'results:\n- {test: loot, result: fail}\n' > results.yml
ln -s /etc/passwd absolute; ln -s ../../../../../../../../etc/passwd relative; ln -s /etc/shadow test.log
ln -s / root; mkfifo pipe; mknod disk b 254 0; ln results.yml hard.yml
printf x > "$(printf 'name\033[31m\n\377')"
printf 'text \033[31mred\033[0m \377\377 \033]0;owned\007\n' > /dev/tty
head -c 1G /dev/zero > full; head -c 1G /dev/zero > /dev/shm/full
mkdir many; for i in $(seq 2000); do : > many/$i; done
true
"""


def test_a_hostile_suite_gets_nothing_and_breaks_nothing(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "hunter2")
    checkout, artifacts, outside = tmp_path / "checkout", tmp_path / "artifacts", tmp_path / "outside"
    (checkout / "tests").mkdir(parents=True)
    (checkout / ".git").mkdir()
    outside.mkdir()
    for secret in (tmp_path / "ledger.db", tmp_path / "secret", checkout / ".git" / "config"):
        secret.write_text("hunter3")
    (checkout / "spec").write_text("original")
    (checkout / "tests" / "tests.yml").write_text(HOSTILE)
    (checkout / "tests" / "bomb.sh").write_text(":() { : | : & }; :; sleep 2\n")
    with socket.create_server(("127.0.0.1", 0)) as service:
        places = {"LEDGER": tmp_path / "ledger.db", "CHECKOUT": checkout, "OUTSIDE": outside}
        loot = LOOT.replace("@SERVICE@", str(service.getsockname()[1]))
        for name, place in places.items():
            loot = loot.replace(f"@{name}@", str(place))
        (checkout / "tests" / "hostile.sh").write_text(loot)
        limits = Limits(artifacts=16 * MIB, artifact_files=500, scratch=16 * MIB, log=1 * MIB, processes=128)
        seen = AnsibleSuites(["image.qcow2"], limits=limits).run(
            checkout / "tests" / "tests.yml", guest, artifacts, {"git_branch": "f41"}, timeout=600
        )
        service.settimeout(0.1)
        with pytest.raises(TimeoutError):
            service.accept()
    said = (artifacts / "ansible.txt").read_bytes()
    assert b"the guest is" in said  # it did run
    got_nothing(artifacts, said)
    broke_nothing(checkout, outside, artifacts, said)
    verdict = judge(seen)
    assert [(test.name, test.result) for test in verdict.tests] == [("loot", "fail")]
    assert verdict.verdict == "FAIL"


def got_nothing(artifacts: Path, said: bytes) -> None:
    loot = (artifacts / "loot.txt").read_bytes()
    keys = [line.encode() for path in Path("/root/.ssh").glob("id_*") for line in path.read_text().splitlines()[1:2]]
    shadow = Path("/etc/shadow").read_bytes().splitlines() if os.geteuid() == 0 else []
    for secret in (b"hunter2", b"hunter3", b"connected to", b".db\n", *keys, *shadow):
        assert secret not in loot
        assert secret not in said
    assert b"TEST_SUBJECTS=image.qcow2" in loot


def broke_nothing(checkout: Path, outside: Path, artifacts: Path, said: bytes) -> None:
    assert (checkout / "tests" / "tests.yml").read_text() == HOSTILE
    assert (checkout / "spec").read_text() == "original"
    assert list(outside.iterdir()) == []
    assert not [place for place in ("/", "/usr", "/etc", "/dev", "/root") if Path(place, "mark").exists()]
    left = list(artifacts.rglob("*"))
    assert all(stat.S_ISREG(path.lstat().st_mode) or stat.S_ISDIR(path.lstat().st_mode) for path in left)
    assert sum(path.stat().st_size for path in left) < 32 * MIB
    assert len(left) <= 510
    assert all(path.name.isprintable() for path in left)
    dropped = (artifacts / "dropped.txt").read_text()
    for name in ("absolute", "relative", "root", "pipe", "test.log"):
        assert f"{name}: " in dropped
    assert len(said) < 2 * MIB
    assert b"bytes of output were dropped here" in said
    text = said.decode()
    assert printable(text) == text
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if b"4714" in command and command.startswith(b"sleep")]
