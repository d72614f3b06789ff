"""Whose fault it is when an image of a tree does not boot, or is not what it should be: one table, no guest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from distgate.atomic.checks import STATUS_COMMAND, WRITE_COMMAND
from distgate.atomic.smoke_test import TreeSmoke
from distgate.atomic.upgrade_test import TreeUpgrade
from distgate.errors import ConfigurationError, DistgateError, InfrastructureError, PackageError, TimedOut
from distgate.guests.base import CommandResult, Guest
from distgate.images.smoke import INSTALLED_COMMAND, KERNEL_COMMAND
from distgate.ostree.base import ComposedTree
from distgate.rpm.nevra import Nevra

REV, OTHER = "a1" * 32, "b2" * 32
BASH = Nevra("bash", 0, "5.2", "1.fc41", "x86_64", "bash-5.2-1.fc41.src.rpm")
TREE = ComposedTree("fedora/f41/x86_64/atomic-host", REV, "41.2", None, (), (), (BASH,), "dnf", 0)
IMAGE, GOOD = Path("/image.qcow2"), Path("/good.qcow2")
KEY = Path("/key")
SAID = {
    STATUS_COMMAND: CommandResult(0, f"* fedora-atomic {REV}.0\n    Version: 41.2\n", ""),
    INSTALLED_COMMAND: CommandResult(0, "bash|0|5.2|1.fc41|x86_64|bash-5.2-1.fc41.src.rpm\n", ""),
    KERNEL_COMMAND: CommandResult(0, "6.11\n", ""),
    WRITE_COMMAND: CommandResult(1, "touch: cannot touch '/usr/.distgate-write': Read-only file system\n", ""),
}


@dataclass(frozen=True)
class PaperGuest:
    """Answers as it was told to."""

    console: Path
    said: dict[str, CommandResult]
    name: str = "paper"
    port: int = 0
    key: Path = KEY

    def run(self, command: str, timeout: float) -> CommandResult:
        return self.said[command]

    def console_tail(self, size: int = 2000) -> str:
        return ""

    def reboot(self, timeout: float) -> Guest:
        raise TimedOut("it is made of paper")


@dataclass
class PaperHost:
    """A GuestHost on which the images in ``dead`` do not boot."""

    said: dict[str, CommandResult] = field(default_factory=lambda: dict(SAID))
    dead: tuple[Path, ...] = ()

    @contextmanager
    def boot(self, image: Path, key: Path, workdir: Path, timeout: float) -> Iterator[Guest]:
        if image in self.dead:
            raise TimedOut("gave up waiting for the guest's ssh banner", evidence="kernel panic")
        workdir.mkdir(parents=True, exist_ok=True)
        yield PaperGuest(workdir / "console.log", self.said)


#: What does not boot, what it is compared with, the class and the words of the error.
DEAD: tuple[tuple[tuple[Path, ...], Path | None, type[DistgateError], str], ...] = (
    ((IMAGE,), GOOD, PackageError, r"the image of 41\.2 does not boot, one that booted before still does"),
    ((IMAGE, GOOD), GOOD, InfrastructureError, "neither the image nor one that booted before"),
    ((IMAGE,), None, InfrastructureError, "there is none to compare it with"),
)


@pytest.mark.parametrize(("dead", "good", "kind", "words"), DEAD)
def test_an_image_that_does_not_boot_is_its_trees_fault_only_where_another_boots(
    dead: tuple[Path, ...], good: Path | None, kind: type[DistgateError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words) as failed:
        TreeSmoke(PaperHost(dead=dead), 1).test(IMAGE, TREE, KEY, tmp_path, good=good)
    assert failed.value.evidence == "kernel panic"


def test_an_image_of_another_commit_fails_and_the_report_is_kept(tmp_path: Path) -> None:
    said = SAID | {STATUS_COMMAND: CommandResult(0, f"* fedora-atomic {OTHER}.0\n", "")}
    with pytest.raises(PackageError, match="it runs b2b2b2b2b2b2, not a1a1a1a1a1a1"):
        TreeSmoke(PaperHost(said), 1).test(IMAGE, TREE, KEY, tmp_path)
    assert "it runs b2b2b2b2b2b2" in (tmp_path / "smoke.json").read_text()


def test_an_image_that_is_what_it_should_be_passes(tmp_path: Path) -> None:
    report = TreeSmoke(PaperHost(), 1).test(IMAGE, TREE, KEY, tmp_path)
    assert report.passed
    assert report.sentence == "the image of a1a1a1a1a1a1 (41.2) boots into it, and no unit fails"


def test_of_a_branchs_first_commit_a_host_is_looked_at_and_the_rest_is_said_to_be_skipped(tmp_path: Path) -> None:
    report = TreeUpgrade(PaperHost(), 1).test(None, TREE, "http://x/", KEY, (BASH,), tmp_path, new=IMAGE)
    assert report.passed
    assert report.before is None
    assert not report.upgraded
    assert report.skipped == ("upgrade and rollback are skipped, for the branch has no commit before this one",)
    assert report.skipped[0] in report.sentence
    assert report.skipped[0] in (tmp_path / "upgrade.txt").read_text()


def test_a_commit_before_that_does_not_boot_is_nobodys_fault_but_ours(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="ssh banner"):
        TreeUpgrade(PaperHost(dead=(IMAGE,)), 1).test(IMAGE, TREE, "http://x/", KEY, (BASH,), tmp_path)


def test_a_disk_of_the_wrong_commit_is_our_fault(tmp_path: Path) -> None:
    tree = ComposedTree("r", OTHER, "41.3", "c3" * 32, (), (), (BASH,), "dnf", 0)
    with pytest.raises(InfrastructureError, match=r"runs a1a1a1a1a1a1 \(41\.2\), not c3c3c3c3c3c3"):
        TreeUpgrade(PaperHost(), 1).test(IMAGE, tree, "http://x/", KEY, (BASH,), tmp_path)


def test_without_any_disk_nothing_is_tested(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="neither a disk"):
        TreeUpgrade(PaperHost(), 1).test(None, TREE, "http://x/", KEY, (BASH,), tmp_path)
