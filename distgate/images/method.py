"""How an image is made: ``layered`` puts the packages on a base, ``full`` runs the installer.

A package that shapes the install itself (the kernel, what boots it, what every other package is unpacked onto) is
only tested by an installation. The table lists which packages do, and how.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from distgate.errors import ConfigurationError

MethodName = Literal["layered", "full"]
Choice = Literal["auto", "layered", "full"]


@dataclass(frozen=True)
class ComposeMethod:
    """How an image is made, and why, as a sentence for the record."""

    name: MethodName
    reason: str


@dataclass(frozen=True)
class Shaper:
    """Packages, as shell patterns of source or binary names, and what they do to the install."""

    patterns: tuple[str, ...]
    role: str


#: The first match decides the recorded reason. Left out with intent, because a base shows as much:
#: - e2fsprogs, xfsprogs, btrfs-progs, parted, util-linux, lvm2: the installer formats the disk with the copy in its
#:   own boot image, which is the release's and never the build under test;
#: - glibc, rpm, dnf, selinux-policy: used while installing, and replaced in a base like any other package.
#: A build of systemd goes the full way by its systemd-boot-unsigned; kernel-install is in it as well.
SHAPERS = (
    Shaper(("kernel", "kernel-core", "kernel-modules*"), "is the kernel that the image boots"),
    Shaper(("kernel-debug*", "kernel-rt*", "kernel-64k*", "kernel-16k*"), "is a kernel that the image can boot"),
    Shaper(("dracut", "dracut-*"), "makes the initramfs while the kernel is installed"),
    Shaper(("grub2", "grub2-*", "grubby"), "is the bootloader that the installation writes to the disk"),
    Shaper(("shim", "shim-*"), "is what the firmware starts before the bootloader"),
    Shaper(("systemd-boot*", "sdubby"), "is a bootloader that the installation writes to the disk"),
    Shaper(("syslinux", "syslinux-*"), "is a bootloader that the installation writes to the disk"),
    Shaper(("efibootmgr", "efi-filesystem", "efivar*"), "makes the bootloader known to the firmware"),
    Shaper(("s390utils*", "uboot-tools", "uboot-images-*"), "holds the bootloader of its platform"),
    Shaper(("filesystem",), "lays out the directories that every other package is unpacked into"),
    Shaper(("setup",), "holds the users and groups that the files of other packages belong to"),
    Shaper(("basesystem",), "is installed before every other package"),
    Shaper(("fedora-release", "fedora-release-*", "generic-release*"), "says which release is installed"),
    Shaper(("fedora-repos", "fedora-repos-*", "fedora-gpg-keys"), "says where the release is installed from"),
    Shaper(("anaconda", "anaconda-*", "python-blivet", "python3-blivet"), "is part of the installer"),
    Shaper(("pykickstart", "python3-kickstart", "lorax", "lorax-*"), "is part of the installer"),
)


def compose_method_for(source_name: str, binary_names: Iterable[str], chosen: Choice = "auto") -> ComposeMethod:
    """How to make the image for a build of ``source_name`` that puts ``binary_names`` into it.

    A source in the table counts whatever it is called in the image, and so does each of its packages there.
    ``chosen`` other than "auto" is obeyed; the reason then says what the table would have chosen. Raises
    ConfigurationError for a choice that does not exist.
    """
    if chosen not in ("auto", "layered", "full"):
        raise ConfigurationError(f"there is no compose method {chosen!r}", hint="auto, layered or full")
    shaped = _first_shaper([source_name, *binary_names])
    if chosen == "auto":
        if shaped:
            return ComposeMethod("full", f"{shaped}, so the image is installed anew.")
        return ComposeMethod("layered", f"No package of {source_name} shapes the install itself, so a base takes it.")
    if chosen == "layered" and shaped:
        return ComposeMethod("layered", f"It was asked for, although {shaped}: no installation has tested that.")
    return ComposeMethod(chosen, "It was asked for.")


def _first_shaper(names: list[str]) -> str:
    for shaper in SHAPERS:
        for name in names:
            if any(_is(name, pattern) for pattern in shaper.patterns):
                return f"{name} {shaper.role}"
    return ""


def _is(name: str, pattern: str) -> bool:
    # Most differ at the beginning: a run does not make forty regular expressions to find that.
    return name.startswith(pattern.partition("*")[0]) and fnmatch.fnmatchcase(name, pattern)
