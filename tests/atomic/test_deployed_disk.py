"""A disk of an OSTree commit: what is on it, whose fault it is when there is none, what a killed worker leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from distgate.atomic.disk import OFFSET, DiskDeployer
from distgate.atomic.disk_cache import DeployedDisks
from distgate.errors import ConfigurationError, InfrastructureError, PackageError
from distgate.mounts.partitions import root_offset
from distgate.process import run
from distgate.waiting import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="deploying a disk takes root")

REF = "fedora/f41/x86_64/atomic-host"
URL = "http://trees.example.org/f41/ostree"
OS_RELEASE = "NAME=Tiny\nID=tiny\nVERSION=41\nPRETTY_NAME=Tiny\n"
DEPLOYER = DiskDeployer(size=256)


@dataclass(frozen=True)
class Tiny:
    """A repository of commits that ostree takes for hosts, though no kernel is in them, and an ssh key."""

    repository: Path
    key: Path
    revs: tuple[str, ...]


def commit(repository: Path, tree: Path, ref: str = REF) -> str:
    words = ["ostree", f"--repo={repository}", "commit", f"--branch={ref}", f"--tree=dir={tree}", "--owner-uid=0"]
    return run([*words, "--owner-gid=0", "--add-metadata-string=version=41.1"], timeout=60).output.strip()


def tiny_tree(top: Path) -> Path:
    for name in ("usr/etc", "usr/lib/modules/6.1", "sysroot", "var", "boot", "proc", "dev", "run", "sys", "tmp"):
        (top / name).mkdir(parents=True)
    (top / "ostree").symlink_to("sysroot/ostree")
    (top / "usr/lib/os-release").write_text(OS_RELEASE)
    (top / "usr/etc/os-release").symlink_to("../usr/lib/os-release")
    for name in ("vmlinuz", "initramfs.img"):
        (top / "usr/lib/modules/6.1" / name).write_text(name)
    return top


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    top = tmp_path_factory.mktemp("tiny")
    repository, key = top / "repository", top / "key"
    run(["ostree", f"--repo={repository}", "init", "--mode=archive"], timeout=60)
    tree = tiny_tree(top / "tree")
    first = commit(repository, tree)
    (tree / "usr/second").touch()
    second = commit(repository, tree)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tiny", "-f", key], timeout=60)
    return Tiny(repository, key, (first, second))


def read(image: Path, path: str, scratch: Path) -> str:
    raw = scratch / "disk.raw"
    run(["qemu-img", "convert", "-O", "raw", image, raw], timeout=120)
    return run(["debugfs", "-R", path, f"{raw}?offset={OFFSET}"], timeout=60, split_errors=True).output


def test_a_disk_holds_the_commit_deployed_its_remote_and_the_key(tiny: Tiny, tmp_path: Path) -> None:
    rev = tiny.revs[0]
    into = tmp_path / "disk.qcow2"
    built = DEPLOYER.deploy(tiny.repository, rev, REF, into, remote_url=URL, key=tiny.key)
    assert built.path == into
    assert root_offset(into) == OFFSET
    assert [step.name for step in built.steps] == [
        *("make the file system", "mount", "fetch the commit", "deploy it", "make it boot", "unmount"),
        "convert it to qcow2",
    ]
    raw = tmp_path / "disk.raw"
    run(["qemu-img", "convert", "-O", "raw", into, raw], timeout=120)
    where = f"{raw}?offset={OFFSET}"
    run(["e2fsck", "-f", "-n", where], timeout=60)

    def told(request: str) -> str:
        return run(["debugfs", "-R", request, where], timeout=60, split_errors=True).output

    menu = told("cat /boot/loader.1/syslinux.cfg")
    uuid = run(["blkid", "-p", "-O", str(OFFSET), "-o", "value", "-s", "UUID", raw], timeout=60).output.strip()
    assert f"root=UUID={uuid} rw console=tty0 console=ttyS0,115200n8" in menu
    assert "ostree=/ostree/boot.1/fedora-atomic/" in menu
    assert "TIMEOUT 1" in menu
    config = told("cat /ostree/repo/config")
    assert f'[remote "fedora-atomic"]\nurl={URL}\nbranches={REF};\ngpg-verify=false' in config
    assert told(f"cat /ostree/repo/refs/remotes/fedora-atomic/{REF}").strip() == rev
    assert f"refspec=fedora-atomic:{REF}" in told(f"cat /ostree/deploy/fedora-atomic/deploy/{rev}.0.origin")
    home = "/ostree/deploy/fedora-atomic/var/roothome"
    assert told(f"cat {home}/.ssh/authorized_keys") == Path(f"{tiny.key}.pub").read_text()
    assert "0600" in told(f"stat {home}/.ssh/authorized_keys")
    assert "0700" in told(f"stat {home}/.ssh")


def test_a_commit_that_is_not_the_refs_head_is_deployed_as_well_as_the_head(tiny: Tiny, tmp_path: Path) -> None:
    for rev in tiny.revs:
        into = tmp_path / f"{rev}.qcow2"
        DEPLOYER.deploy(tiny.repository, rev, REF, into, remote_url=URL, key=tiny.key)
        deployed = read(into, "ls -p /ostree/deploy/fedora-atomic/deploy", tmp_path)
        assert f"{rev}.0" in deployed


LABELS = (
    ("/ostree/deploy/fedora-atomic/var/roothome/.ssh/authorized_keys", "system_u:object_r:ssh_home_t:s0"),
    ("/ostree/deploy/fedora-atomic/var/roothome", "system_u:object_r:home_t:s0"),
    ("/ostree/deploy/fedora-atomic/deploy/{rev}.0/etc/os-release", "system_u:object_r:etc_t:s0"),
)


def test_what_is_not_in_the_commit_is_labelled_by_its_own_policy(tiny: Tiny, tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    contexts = tree / "usr/etc/selinux/lab/contexts/files/file_contexts"
    contexts.parent.mkdir(parents=True)
    policy = tree / "usr/etc/selinux/lab/policy/policy.33"  # ostree wants to know one by its checksum
    policy.parent.mkdir()
    policy.touch()
    contexts.write_text(
        "/.*\tsystem_u:object_r:default_t:s0\n/etc(/.*)?\tsystem_u:object_r:etc_t:s0\n"
        "/var/roothome(/.*)?\tsystem_u:object_r:home_t:s0\n/var/roothome/\\.ssh(/.*)?\tsystem_u:object_r:ssh_home_t:s0\n"
    )
    (tree / "usr/etc/selinux/config").write_text("SELINUX=enforcing\nSELINUXTYPE=lab\n")
    rev = commit(tiny.repository, tree, "labelled")
    built = DEPLOYER.deploy(tiny.repository, rev, REF, tmp_path / "disk.qcow2", remote_url=URL, key=tiny.key)
    assert "label" in [step.name for step in built.steps]
    for path, label in LABELS:
        said = read(built.path, f"ea_get {path.format(rev=rev)} security.selinux", tmp_path)
        assert label in said, path


def test_nothing_is_left_when_no_disk_can_be_made(tiny: Tiny, tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "usr/lib/modules/6.1/vmlinuz").unlink()
    bad = commit(tiny.repository, tree, "bad")
    place = tmp_path / "place"
    with pytest.raises(PackageError, match=r"no host can be made of the tree: .*kernel"):
        DEPLOYER.deploy(tiny.repository, bad, REF, place / "disk.qcow2", remote_url=URL, key=tiny.key)
    with pytest.raises(InfrastructureError, match="cannot be made"):
        DEPLOYER.deploy(tiny.repository, "0" * 64, REF, place / "disk.qcow2", remote_url=URL, key=tiny.key)
    with pytest.raises(ConfigurationError, match="no public half"):
        DEPLOYER.deploy(tiny.repository, bad, REF, place / "disk.qcow2", remote_url=URL, key=place / "nokey")
    assert [path.name for path in place.iterdir()] == ["disk.qcow2.deploy.log"]
    assert not left_behind()


def test_a_tree_that_does_not_fit_is_our_disks_fault(tiny: Tiny, tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree")
    (tree / "usr/bulk").write_bytes(os.urandom(60 << 20))
    bulky = commit(tiny.repository, tree, "bulky")
    small = replace(DEPLOYER, size=64)
    with pytest.raises(InfrastructureError, match=r"space|free"):
        small.deploy(tiny.repository, bulky, REF, tmp_path / "disk.qcow2", remote_url=URL, key=tiny.key)
    assert not left_behind()


WORKER = f"""
import sys
from pathlib import Path
from distgate.atomic.disk import DiskDeployer
repository, rev, into, key = sys.argv[1:]
wanted = dict(remote_url="{URL}", key=Path(key), progress=lambda line: print(line, flush=True))
DiskDeployer(size=256).deploy(Path(repository), rev, "{REF}", Path(into), **wanted)
"""


@pytest.mark.parametrize("moment", ["fetch the commit ...", "make it boot ...", "convert it to qcow2 ..."])
def test_a_killed_worker_leaves_no_mount_no_loop_device_no_process_and_no_image(
    tiny: Tiny, tmp_path: Path, moment: str
) -> None:
    into = tmp_path / "place" / "disk.qcow2"
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, tiny.repository, tiny.revs[0], into, tiny.key],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout
    while worker.stdout.readline().strip() != moment:
        assert worker.poll() is None
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_for("everything to go", lambda: not left_behind() and not processes_about(into), 20)
    assert [path.name for path in into.parent.iterdir()] == ["disk.qcow2.deploy.log"]


def test_processes_that_ask_at_once_get_one_disk_which_stays_while_it_is_used(tiny: Tiny, tmp_path: Path) -> None:
    disks = DeployedDisks(tmp_path / "disks", DEPLOYER)
    said: list[str] = []
    seen: list[tuple[Path, int]] = []

    def ask() -> None:
        with disks.disk(
            tiny.repository, tiny.revs[0], REF, remote_url=URL, key=tiny.key, progress=said.append
        ) as disk:
            seen.append((disk, disk.stat().st_ino))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(seen) == 3
    assert len(set(seen)) == 1
    assert said.count("deploy it ...") == 1
    with disks.disk(tiny.repository, tiny.revs[0], REF, remote_url=f"{URL}/other", key=tiny.key) as other:
        assert other != seen[0][0]


def test_disks_go_that_no_ref_points_to_unless_somebody_uses_them(tiny: Tiny, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    run(["ostree", f"--repo={repository}", "init", "--mode=archive"], timeout=60)
    run(["ostree", f"--repo={repository}", "pull-local", tiny.repository, *tiny.revs], timeout=60)
    disks = DeployedDisks(tmp_path / "disks", DEPLOYER)
    first, second = tiny.revs
    run(["ostree", f"--repo={repository}", "refs", f"--create={REF}", second], timeout=60)
    with (
        disks.disk(tiny.repository, first, REF, remote_url=URL, key=tiny.key) as used,
        disks.disk(tiny.repository, second, REF, remote_url=URL, key=tiny.key) as kept,
    ):
        assert disks.prune(repository) == ()
        assert used.exists()
    assert disks.prune(repository, dry_run=True) == disks.prune(repository) == (first,)
    assert not used.exists()
    assert kept.exists()


def left_behind() -> list[str]:
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    loops = run(["losetup", "-a"], timeout=10).output.splitlines()
    return [line for line in (*mounts, *loops) if "distgate-deploy-" in line or "disk.qcow2" in line]


def processes_about(image: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue
            if str(image) in words or "disk_child" in words:
                found.append(int(entry.name))
    return found
