"""Images of trees: whole or not there, latest only once promoted, and never pruned while somebody uses them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.atomic.images import LATEST, LATEST_JSON, TreeImage, TreeImages
from distgate.errors import InfrastructureError
from distgate.ostree.base import ComposedTree

DAY = 86400.0


@dataclass
class Clock:
    """A clock that is set."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def images(tmp_path: Path, clock: Clock) -> TreeImages:
    return TreeImages(tmp_path / "images", "http://trees.example.org/f41/images/", keep=1, clock=clock)


def tree(number: int) -> ComposedTree:
    rev = f"{number:x}" * 64
    return ComposedTree("fedora/f41/x86_64/atomic-host", rev, f"41.{number}", None, (), (), (), "dnf", 0)


def placed(images: TreeImages, number: int) -> TreeImage:
    source = images.directory.parent / "new.qcow2"
    source.write_bytes(b"QFI\xfb" + bytes(number))
    return images.place(source, tree(number))


def test_an_image_has_the_version_and_fifteen_digits_of_the_commit_in_its_name(images: TreeImages) -> None:
    image = placed(images, 7)
    assert image.name == images.name(tree(7)) == "fedora-atomic-41.7-777777777777777.qcow2"
    assert image.url == f"http://trees.example.org/f41/images/{image.name}"
    assert (image.rev, image.version, image.size) == ("7" * 64, "41.7", 11)
    assert not (images.directory.parent / "new.qcow2").exists()
    assert images.all() == (image,)


def test_an_image_comes_whole_from_another_file_system(images: TreeImages) -> None:
    there = Path("/dev/shm") / f"distgate-{os.getpid()}.qcow2"
    there.write_bytes(b"QFI\xfb" * 100_000)
    image = images.place(there, tree(1))
    assert image.path.read_bytes() == b"QFI\xfb" * 100_000
    assert not there.exists()
    assert sorted(path.name for path in images.directory.iterdir()) == [image.name, f"{image.name}.json"]


def test_latest_moves_with_a_promotion_and_not_before(images: TreeImages, clock: Clock) -> None:
    first = placed(images, 1)
    assert images.latest() is None
    promoted = images.promote(first)
    assert promoted.promoted == clock.now
    clock.now += 5
    second = placed(images, 2)
    assert images.latest() == promoted
    assert os.readlink(images.directory / LATEST) == first.name
    images.promote(second)
    assert os.readlink(images.directory / LATEST) == second.name
    facts = json.loads((images.directory / LATEST_JSON).read_text())
    assert (facts["name"], facts["rev"], facts["url"]) == (second.name, second.rev, second.url)


def test_an_image_is_due_when_the_last_good_one_is_too_old_however_many_failed_since(
    images: TreeImages, clock: Clock
) -> None:
    assert images.due(DAY)
    placed(images, 1)
    assert images.due(DAY)
    images.promote(placed(images, 2))
    assert not images.due(DAY)
    clock.now += DAY - 1
    placed(images, 3)
    assert not images.due(DAY)
    clock.now += 2
    assert images.due(DAY)


#: What can become of an image; none of these counts any more.
BROKEN = (
    lambda image: image.path.write_bytes(b"half"),
    lambda image: image.path.unlink(),
    lambda image: image.path.with_name(f"{image.name}.json").unlink(),
    lambda image: image.path.with_name(f"{image.name}.json").write_text('{"rev": '),
    lambda image: image.path.with_name(f"{image.name}.json").write_text("[]"),
)


@pytest.mark.parametrize("harm", BROKEN)
def test_a_bad_or_half_image_never_counts(images: TreeImages, harm: object) -> None:
    image = images.promote(placed(images, 1))
    harm(image)  # type: ignore[operator]
    assert images.all() == ()
    assert images.latest() is None
    assert images.due(DAY)
    with pytest.raises(InfrastructureError):
        images.promote(image)


def test_a_link_that_leads_elsewhere_is_no_latest(images: TreeImages) -> None:
    images.promote(placed(images, 1))
    (images.directory / LATEST).unlink()
    (images.directory / LATEST).symlink_to("../new.qcow2")
    assert images.latest() is None


def test_pruning_spares_the_latest_what_is_used_and_the_newest(images: TreeImages, clock: Clock) -> None:
    made = []
    for number in range(1, 6):
        clock.now += 1
        made.append(placed(images, number))
        if number == 1:
            images.promote(made[0])
    with images.using(made[1]) as used:
        assert set(images.prune()) == {made[2].name, made[3].name}
        assert used.exists()
    assert {image.name for image in images.all()} == {made[0].name, made[1].name, made[4].name}
    assert images.prune(dry_run=True) == (made[1].name,)
    assert made[1].path.exists()
    assert images.prune() == (made[1].name,)
    with pytest.raises(InfrastructureError, match="gone"), images.using(made[1]):
        pass


def test_what_a_killed_process_left_goes_after_a_day(images: TreeImages, clock: Clock) -> None:
    kept = placed(images, 1)
    half = images.directory / "fedora-atomic-41.2-222222222222222.qcow2"
    draft = images.directory / f".{LATEST}.4711.new"
    half.write_bytes(b"half")
    draft.symlink_to("nothing")
    clock.now = half.stat().st_mtime + DAY - 60
    images.prune()
    assert half.exists()
    clock.now += 120
    images.prune()
    assert not half.exists()
    assert not draft.is_symlink()
    assert images.all() == (kept,)
