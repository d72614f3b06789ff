"""An upgrade that goes wrong, and whose fault it is; one that goes well is in tests/e2e/test_atomic_host.py."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from lab_commits import Commits, served, two_commits

from distgate.atomic.disk_cache import DeployedDisks
from distgate.atomic.image_methods import InstalledImage
from distgate.atomic.images import TreeImages
from distgate.atomic.smoke_test import TreeSmoke
from distgate.atomic.upgrade_test import TreeUpgrade
from distgate.errors import InfrastructureError, PackageError
from distgate.guests.host import LibvirtGuests
from distgate.kickstart.definition import HOME
from distgate.kickstart.imagefactory import ImageFactory
from lab.images.base_image import ensure_key
from lab.images.deployed_disk import lab_deployer
from lab.images.imagefactory import COMMAND, INSTALL_URL, RESOURCES

#: Three boots and an upgrade, each of them some minutes long on a machine with many guests.
pytestmark = [pytest.mark.guest, pytest.mark.timeout(2700)]
SECONDS = 90.0


@pytest.fixture(scope="module")
def key(cache: Path) -> Path:
    return ensure_key(cache)


@pytest.fixture(scope="module")
def commits(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Commits:
    return two_commits(cache, tmp_path_factory.mktemp("commits") / "ostree")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> DeployedDisks:
    return DeployedDisks(tmp_path_factory.mktemp("disks"), lab_deployer())


def test_a_repository_that_is_away_during_the_upgrade_is_not_the_trees_fault(
    commits: Commits, disks: DeployedDisks, key: Path, tmp_path: Path
) -> None:
    old, new = commits.trees
    with socket.socket() as taken:  # bound and never listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        upgrade = TreeUpgrade(LibvirtGuests(tmp_path / "state"), SECONDS, print)
        with (
            disks.disk(commits.published, old.rev, old.ref, remote_url=url, key=key) as disk,
            pytest.raises(InfrastructureError, match=f"the repository {url} does not answer"),
        ):
            upgrade.test(disk, new, url, key, new.requested, tmp_path / "room")
    assert "does not answer" in (tmp_path / "room" / "upgrade.txt").read_text()


def test_an_image_that_an_installer_made_by_kickstart_boots_into_its_commit_and_becomes_the_latest(
    commits: Commits, key: Path, tmp_path: Path
) -> None:
    new = commits.trees[-1]
    builder = ImageFactory(command=COMMAND, install_url=INSTALL_URL, resources=RESOURCES)
    way = InstalledImage(builder, HOME / "lab-atomic.ks", "41", 1200)
    images = TreeImages(tmp_path / "images", "http://trees.example.org/f41/images")
    with served(commits.published) as url:
        made = way.make(commits.published, new, url, key, tmp_path / "new.qcow2", print)
        assert f"--url={url} --ref={new.ref}" in made.kickstart
        assert f"Deployed commit: {new.rev}" in made.built.log.read_text()
    image = images.place(made.built.path, new)
    report = TreeSmoke(LibvirtGuests(tmp_path / "state"), SECONDS).test(image.path, new, key, tmp_path / "room")
    assert report.sentence == f"the image of {new.rev[:12]} (41.2) boots into it, and no unit fails"
    assert images.promote(image) == images.latest()
    assert {path.name for path in (tmp_path / "room").iterdir()} >= {"console.log", "boot.txt", "status-image.txt"}


PURPLE = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c 'echo the disk is purple > /dev/console; exec systemctl poweroff --force --force'
"""


def test_a_host_that_does_not_come_back_is_the_trees_fault_with_the_consoles_last_words(
    commits: Commits, disks: DeployedDisks, key: Path, tmp_path: Path
) -> None:
    units = tmp_path / "overlay/usr/lib/systemd/system"
    units.mkdir(parents=True)
    (units / "lab-sshd.service").write_text(PURPLE)
    good = commits.trees[-1]
    bad = commits.spoiled(tmp_path / "overlay")
    upgrade = TreeUpgrade(LibvirtGuests(tmp_path / "state"), SECONDS, print)
    with (
        served(commits.published) as url,
        disks.disk(commits.published, good.rev, good.ref, remote_url=url, key=key) as disk,
        pytest.raises(
            PackageError, match=r"does not come back from its restart into 41\.3.*the commit before boots"
        ) as lost,
    ):
        upgrade.test(disk, bad, url, key, bad.requested, tmp_path / "room")
    assert "the disk is purple" in lost.value.evidence
    assert "rollback" not in str(lost.value)  # it has powered off, and nobody can be asked
    assert json.loads((tmp_path / "room" / "upgrade.json").read_text())["upgraded"] is False
