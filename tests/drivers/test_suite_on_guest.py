"""One real boot: what a guest allows, and a suite that runs in it from its playbook to its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from distgate.drivers import ssh
from distgate.drivers.ansible import AnsibleSuites
from distgate.drivers.base import BaseImage, Guest
from distgate.drivers.guests import LibvirtGuests
from distgate.errors import InfrastructureError
from distgate.packages import Nevra
from distgate.smoke import INSTALLED_COMMAND, KERNEL_COMMAND
from distgate.smoke import judge as judge_smoke
from distgate.verdict import judge

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
