"""What an OSTree host says of itself is read in both its forms, and judged by tables."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from distgate.atomic.checks import (
    Deployment,
    HostStatus,
    Seen,
    blame_of_upgrade,
    judge_tree,
    point_remote_command,
    read_status,
    rollback_command,
)
from distgate.errors import InfrastructureError
from distgate.rpm.nevra import Nevra

NEW, OLD = "a1" * 32, "b2" * 32
REF = "fedora-atomic:fedora/f41/x86_64/atomic-host"
ADMIN = f"""  fedora-atomic {NEW}.0 (pending)
    Version: 41.2
    origin refspec: {REF}
* fedora-atomic {OLD}.1
    Version: 41.1
    origin refspec: {REF}
"""
STAGED = ADMIN.replace("(pending)", "(staged)").replace("    Version: 41.1\n", "")
JSON = json.dumps(
    {
        "deployments": [
            {"osname": "fedora-atomic", "checksum": NEW, "serial": 0, "booted": False, "staged": True,
             "version": "41.2", "origin": REF},
            {"osname": "fedora-atomic", "checksum": "c3" * 32, "base-checksum": OLD, "serial": 1, "booted": True,
             "version": "41.1", "origin": REF},
        ],
        "transaction": None,
    }
)  # fmt: skip
STATUS = HostStatus(
    (
        Deployment("fedora-atomic", NEW, 0, False, "41.2", REF),
        Deployment("fedora-atomic", OLD, 1, True, "41.1", REF),
    )
)
SAID = (
    (ADMIN, STATUS),
    (JSON, STATUS),
    (STAGED, HostStatus((STATUS.next, replace(STATUS.booted, version="")))),
    (f"* lab {NEW}.0\n", HostStatus((Deployment("lab", NEW, 0, True),))),
)


@pytest.mark.parametrize(("said", "status"), SAID)
def test_ostree_and_rpm_ostree_tell_the_same(said: str, status: HostStatus) -> None:
    assert read_status(said) == status


@pytest.mark.parametrize(
    "said", ["", "error: No deployments", "{}", '{"deployments": [{}]}', '{"deployments": 7}', "{"]
)
def test_a_status_that_cannot_be_read_is_nobodys_verdict(said: str) -> None:
    with pytest.raises(InfrastructureError):
        read_status(said)


def test_a_host_that_runs_no_deployment_is_refused() -> None:
    with pytest.raises(InfrastructureError, match="no OSTree deployment"):
        _ = read_status(ADMIN.replace("*", " ")).booted


def test_the_remote_is_the_origins_and_a_host_pinned_to_a_commit_has_none() -> None:
    assert STATUS.booted.remote == "fedora-atomic"
    assert replace(STATUS.booted, origin=OLD).remote == ""


#: What an upgrade said last, and who is to blame.
UPGRADES = (
    ("error: While fetching http://127.0.0.1:8899/config: [7] Couldn't connect to server", "infrastructure"),
    ("error: Server returned HTTP 503", "infrastructure"),
    ("error: Server returned status 404: Not Found", "infrastructure"),
    ("error: fetching: Timeout was reached", "infrastructure"),
    ("error: min-free-space-percent '3%' would be exceeded, at least 20 MB requested", "infrastructure"),
    ("error: writing: No space left on device", "infrastructure"),
    ("error: Commit a1: GPG verification enabled, but no signatures found", "configuration"),
    ("error: Upgrade target revision 'a1' with timestamp 'x' is chronologically older than", "infrastructure"),
    ("error: Message recipient disconnected from message bus without replying", "infrastructure"),
    ("error: Failed to find kernel in /usr/lib/modules", "package"),
    ("error: During kernel copy: opendir(boot): No such file or directory", "package"),
    ("error: Merging /etc: Unhandled merge", "package"),
    ("", "package"),
)


@pytest.mark.parametrize(("said", "blame"), UPGRADES)
def test_an_upgrade_that_fails_is_the_trees_fault_unless_its_words_name_another(said: str, blame: str) -> None:
    assert blame_of_upgrade(said) == blame


BASH = Nevra("bash", 0, "5.2", "1.fc41", "x86_64", "bash-5.2-1.fc41.src.rpm")
RPM = "bash|0|5.2|1.fc41|x86_64|bash-5.2-1.fc41.src.rpm"
GOOD = Seen(
    status=HostStatus((Deployment("fedora-atomic", NEW, 0, True),)),
    rpm_lines=(RPM, "zlib|0|1|2|x86_64|zlib-1-2.src.rpm"),
    kernel="6.11",
    write_refused=True,
    write_said="touch: cannot touch '/usr/.distgate-write': Read-only file system",
    failed_units=("old.service",),
)
JUDGED = (
    (GOOD, ()),
    (replace(GOOD, status=STATUS), ("it runs b2b2b2b2b2b2 (41.1), not a1a1a1a1a1a1",)),
    (replace(GOOD, rpm_lines=()), ("not installed: bash-5.2-1.fc41.x86_64",)),
    (
        replace(GOOD, rpm_lines=(RPM.replace("5.2|1", "5.1|9"),)),
        ("wrong version: bash-5.2-1.fc41.x86_64 expected, bash-5.1-9.fc41.x86_64 found",),
    ),
    (replace(GOOD, write_refused=False, write_said=""), ("/usr can be written to",)),
    (
        replace(GOOD, write_said="sh: touch: not found\n"),
        ("a write to /usr is refused for another reason: sh: touch: not found",),
    ),
    (
        replace(GOOD, failed_units=("new.service", "old.service")),
        ("units fail that did not fail before: new.service",),
    ),
)


@pytest.mark.parametrize(("seen", "faults"), JUDGED)
def test_a_host_is_the_commit_it_should_be_or_each_fault_is_said(seen: Seen, faults: tuple[str, ...]) -> None:
    verdict = judge_tree(NEW, [BASH], seen, ["old.service"])
    assert (verdict.faults, verdict.passed) == (faults, not faults)


def test_a_change_of_which_nothing_is_in_the_tree_is_judged_without_packages() -> None:
    assert judge_tree(NEW, [], GOOD, ["old.service"]).packages is None


def test_a_host_without_rpm_ostree_goes_back_by_what_its_ostree_can_do() -> None:
    command = rollback_command(STATUS, OLD)
    assert "exec rpm-ostree rollback" in command
    assert "ostree admin set-default 1" in command
    assert f"ostree admin deploy --os=fedora-atomic {OLD}" in command
    assert rollback_command(STATUS, "dd" * 32) == f"exec ostree admin deploy --os=fedora-atomic {'dd' * 32}"


def test_only_the_one_remote_is_pointed_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(
        '[core]\nurl=x\n[remote "fedora-atomic"]\ngpg-verify=false\nurl=http://a/\n[remote "b"]\nurl=http://b/\n'
    )
    command = point_remote_command("fedora-atomic", "http://127.0.0.1:81/f41").replace(
        "/ostree/repo/config", str(file)
    )
    for _ in range(2):
        subprocess.run(["sh", "-c", command], check=True)
        assert file.read_text() == (
            '[core]\nurl=x\n[remote "fedora-atomic"]\ngpg-verify=false\nurl=http://127.0.0.1:81/f41\n'
            '[remote "b"]\nurl=http://b/\n'
        )
