"""Which packages need an installation of their own, and what the record says about it."""

from __future__ import annotations

from typing import Any

import pytest

from distgate.errors import ConfigurationError
from distgate.images.method import Choice, ComposeMethod, compose_method_for

LAYERED = ("layered", "so a base takes it")
FULL = ("full", "so the image is installed anew")

#: Source package, what of it goes into the image, the choice, the way, words of the reason.
CASES: tuple[tuple[str, tuple[str, ...], Choice, str, str], ...] = (
    ("dos2unix", ("dos2unix",), "auto", *LAYERED),
    ("bind", ("bind", "bind-libs"), "auto", *LAYERED),
    ("kernel", ("kernel-core", "kernel-modules"), "auto", *FULL),
    ("kernel", (), "auto", "full", "kernel is the kernel that the image boots"),
    ("kernel-rt", ("kernel-rt-core",), "auto", *FULL),
    ("kernel-headers", ("kernel-headers",), "auto", *LAYERED),
    ("kernel-tools", ("kernel-tools",), "auto", *LAYERED),
    ("grub2", ("grub2-pc",), "auto", "full", "bootloader"),
    ("grubby", ("grubby",), "auto", *FULL),
    ("shim", ("shim-x64",), "auto", "full", "shim is what the firmware starts"),
    ("systemd", ("systemd", "systemd-boot-unsigned"), "auto", "full", "systemd-boot-unsigned is a bootloader"),
    ("systemd", ("systemd", "systemd-libs"), "auto", *LAYERED),
    ("syslinux", ("syslinux-nonlinux",), "auto", "full", "bootloader"),
    ("efivar", ("efivar-libs",), "auto", *FULL),
    ("dracut", ("dracut", "dracut-network"), "auto", "full", "dracut makes the initramfs"),
    ("filesystem", ("filesystem",), "auto", "full", "lays out the directories"),
    ("setup", ("setup",), "auto", *FULL),
    ("basesystem", ("basesystem",), "auto", *FULL),
    ("fedora-release", ("fedora-release-cloud",), "auto", *FULL),
    ("fedora-repos", ("fedora-gpg-keys",), "auto", *FULL),
    ("anaconda", ("anaconda-core",), "auto", "full", "part of the installer"),
    ("lorax", ("lorax",), "auto", *FULL),
    ("pykickstart", ("python3-kickstart",), "auto", *FULL),
    ("python-blivet", ("python3-blivet",), "auto", *FULL),
    ("e2fsprogs", ("e2fsprogs",), "auto", *LAYERED),
    ("util-linux", ("util-linux",), "auto", *LAYERED),
    ("glibc", ("glibc",), "auto", *LAYERED),
    ("filesystem-tools", ("filesystem-tools",), "auto", *LAYERED),
    ("mykernel", ("kernel-core",), "auto", "full", "kernel-core is the kernel"),
    ("dos2unix", ("dos2unix",), "full", "full", "It was asked for."),
    ("dos2unix", ("dos2unix",), "layered", "layered", "It was asked for."),
    ("kernel", ("kernel-core",), "full", "full", "It was asked for."),
    ("kernel", ("kernel-core",), "layered", "layered", "although kernel is the kernel that the image boots"),
)


@pytest.mark.parametrize(
    ("source", "binaries", "chosen", "way", "words"), CASES, ids=[f"{c[0]} {'+'.join(c[1])} {c[2]}" for c in CASES]
)
def test_the_way_and_why(source: str, binaries: tuple[str, ...], chosen: Choice, way: str, words: str) -> None:
    found = compose_method_for(source, binaries, chosen)
    assert found.name == way
    assert words in found.reason


def test_the_reason_is_a_sentence_for_the_record() -> None:
    assert compose_method_for("dracut", ["dracut"]) == ComposeMethod(
        "full", "dracut makes the initramfs while the kernel is installed, so the image is installed anew."
    )


def test_a_choice_that_does_not_exist_is_refused() -> None:
    unknown: Any = "quick"
    with pytest.raises(ConfigurationError, match="there is no compose method 'quick'"):
        compose_method_for("bash", ["bash"], unknown)
