"""The full way to an image: installed anew from a kickstart with the packages, and read back from its disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, PackageError
from distgate.images.base import BaseImage
from distgate.images.contents import installed_in
from distgate.images.full import FullInstaller
from distgate.kickstart.base import BuiltImage
from distgate.process import run
from distgate.rpm.nevra import Nevra
from distgate.steps import Progress, Step

ABSENT = Nevra("absent", 0, "1.0", "3", "noarch", "absent-1.0-3.src.rpm")


@dataclass
class Builder:
    """Whatever the kickstart says, what it builds holds what ``base`` does; ``asked`` is what it was asked for."""

    base: BaseImage
    asked: tuple[str, ...] = ()
    broken: bool = False

    def build(
        self,
        kickstart: str,
        name: str,
        release: str,
        into: Path,
        timeout: float,
        progress: Progress = lambda _line: None,
    ) -> BuiltImage:
        self.asked = (kickstart, name, release)
        log = into.with_name(f"{into.name}.imagefactory.log")
        log.write_text("all was installed\n")
        if self.broken:
            into.write_bytes(b"QFI, almost")
        else:
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", self.base.path, into], timeout=60)
        return BuiltImage(into, log, (Step("build the image", 1.5),), "imagefactory")


def installer(builder: Builder) -> FullInstaller:
    def kickstart(packages: Sequence[Nevra]) -> str:
        return "".join(f"{package}\n" for package in packages)

    return FullInstaller(builder, kickstart, "cloud-f41", "41", 60)


@pytest.fixture(scope="module")
def present(base_image: BaseImage) -> Nevra:
    """A package of the base image."""
    return next(one for one in installed_in(base_image.path, base_image.root_offset) if one.name == "bash")


def test_the_record_says_how_it_was_made_and_what_the_disk_holds(
    base_image: BaseImage, present: Nevra, tmp_path: Path
) -> None:
    builder, progress_lines = Builder(base_image), list[str]()
    into = tmp_path / "image.qcow2"
    image = installer(builder).compose(base_image, tmp_path, [present], into, progress_lines.append)
    assert builder.asked == (f"{present}\n", "cloud-f41", "41")
    assert (image.path, image.base, image.backing) == (into, base_image.identity, None)
    assert (image.way, image.driver, image.requested) == ("full", "imagefactory", (present,))
    assert image.installed == installed_in(base_image.path, base_image.root_offset)
    assert (image.transaction, image.size) == ("all was installed\n", into.stat().st_size)
    assert [step.name for step in image.steps] == ["build the image", "read the RPM database"]
    assert progress_lines[0] == "read the RPM database ..."


def test_a_package_that_the_installer_left_out_is_named_and_no_image_stays(
    base_image: BaseImage, present: Nevra, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=r"not in the image after its installation: absent-1\.0-3\.noarch") as lost:
        installer(Builder(base_image)).compose(base_image, tmp_path, [present, ABSENT], tmp_path / "image.qcow2")
    assert lost.value.evidence == "all was installed\n"
    assert [path.name for path in tmp_path.iterdir()] == ["image.qcow2.imagefactory.log"]


def test_a_disk_that_cannot_be_read_is_not_the_packages_fault(
    base_image: BaseImage, present: Nevra, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="no root file system that can be found"):
        installer(Builder(base_image, broken=True)).compose(base_image, tmp_path, [present], tmp_path / "image.qcow2")
    assert not (tmp_path / "image.qcow2").exists()
