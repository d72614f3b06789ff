"""A kickstart becomes a record, or a refusal that names file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kickstarts
from distgate.errors import ConfigurationError
from distgate.kickstart.definition import OstreeSource, PackageSource, PostScript, read_kickstart, read_text

UNDERSTOOD: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("nothing asks for nothing", "text\n", {"requests": (), "sources": ()}),
    ("an empty %packages section asks for @core", "%packages\n%end\n", {"requests": ("@core",)}),
    ("--nocore leaves it out", "%packages --nocore\nbash\n%end\n", {"requests": ("bash",)}),
    (
        "groups come before packages, each once, packages in the order of the alphabet",
        "%packages\nvim\n@core\n@standard\nvim\nbash\n%end\n",
        {"requests": ("@core", "@standard", "bash", "vim")},
    ),
    ("an environment is a group of groups", "%packages\n@^cloud\n%end\n", {"groups": ("^cloud", "core")}),
    (
        "a minus excludes",
        "%packages\n-plymouth\n-@dial-up\n%end\n",
        {"excluded": ("plymouth",), "excluded_groups": ("dial-up",)},
    ),
    ("weak dependencies come along", "%packages\n%end\n", {"weak_dependencies": True}),
    ("unless they are excluded", "%packages --exclude-weakdeps\n%end\n", {"weak_dependencies": False}),
    (
        "a repository by base URL",
        "repo --name=a --baseurl=http://h/x --cost=5 --excludepkgs=k*,l\n",
        {"sources": (PackageSource("a", "http://h/x", cost=5, excluded=("k*", "l")),)},
    ),
    (
        "a repository by mirror list",
        "repo --name=a --mirrorlist=http://h/m\n",
        {"sources": (PackageSource("a", mirrorlist="http://h/m"),)},
    ),
    (
        "a repository by metalink",
        "repo --name=a --metalink=http://h/m\n",
        {"sources": (PackageSource("a", metalink="http://h/m"),)},
    ),
    ("the kernel's arguments", 'bootloader --append="quiet ro"\n', {"boot_arguments": "quiet ro"}),
    ("the size of the root", "part /boot --size=1\npart / --size=1000 --fstype=ext4\n", {"root_size": 1000}),
    ("no size", "autopart\n", {"root_size": None}),
    ("the host's name", "network --device=eth0 --hostname=here\n", {"hostname": "here"}),
    (
        "root's keys and nobody else's",
        'sshkey --username=root "ssh-ed25519 AAAA a"\nsshkey --username=joe "ssh-ed25519 BBBB b"\n',
        {"root_keys": ("ssh-ed25519 AAAA a",)},
    ),
    (
        "scripts after the installation, in order, and no others",
        "%pre\nfirst\n%end\n%post --erroronfail\nsecond\n%end\n"
        "%post --nochroot --interpreter=/usr/bin/python3\nthird\n%end\n",
        {
            "post": (
                PostScript("second\n", "/bin/sh", 5, fatal=True),
                PostScript("third\n", "/usr/bin/python3", 8, in_chroot=False),
            )
        },
    ),
)


@pytest.mark.parametrize(
    ("text", "expected"), [case[1:] for case in UNDERSTOOD], ids=[case[0] for case in UNDERSTOOD]
)
def test_what_a_kickstart_asks_for(tmp_path: Path, text: str, expected: dict[str, Any]) -> None:
    file = tmp_path / "image.ks"
    file.write_text(text)
    definition = read_kickstart(file)
    assert {name: getattr(definition, name) for name in expected} == expected


REFUSED = (
    ("an unknown command", "text\nbogus\n", "image.ks, line 2: Unknown command: bogus"),
    ("a removed command", "install\n", "line 1: install has been removed"),
    ("an unknown section", "text\n%bogus\n%end\n", "line 2: Unknown kickstart section: %bogus"),
    ("packages without an end", "text\n%packages\nbash\n", "%packages does not end with %end"),
    ("a script without an end", "%post\ntrue\n", "%post does not end with %end"),
    ("an option without a value", "text\ntext\nbootloader --append\n", "line 3: argument --append"),
    ("an unknown option", "%packages --bogus\n%end\n", "line 1: unrecognized arguments: --bogus"),
    ("an open quote", 'text\nbootloader --append="quiet\n', "line 2: No closing quotation"),
    ("a missing include", "text\n%include missing.ks\n", "missing.ks"),
    ("a repository without address", "text\nrepo --name=a\n", "line 2: repo a has no --baseurl"),
    ("a repository that is there twice", "repo --name=a --baseurl=x\nrepo --name=a --baseurl=y\n", "line 2"),
    ("a size that is no number", "part / --size=large\n", "line 1"),
)


@pytest.mark.parametrize(("text", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_broken_kickstart_is_refused_with_file_and_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "image.ks"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        read_kickstart(file)
    assert words in str(refused.value)
    assert "image.ks" in str(refused.value)


def test_a_kickstart_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no kickstart .*/nothing\.ks"):
        read_kickstart(tmp_path / "nothing.ks")


def test_an_old_command_is_understood_in_the_syntax_of_its_release(tmp_path: Path) -> None:
    file = tmp_path / "image.ks"
    file.write_text("install\n%packages\n%end\n")
    assert read_kickstart(file, syntax="F27").requests == ("@core",)


def test_an_unknown_syntax_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "image.ks"
    file.write_text("text\n")
    with pytest.raises(ConfigurationError, match="F999"):
        read_kickstart(file, syntax="F999")


def test_included_files_are_read_relative_to_the_kickstart(tmp_path: Path) -> None:
    (tmp_path / "base.ks").write_text("%packages\nbash\n%end\n")
    (tmp_path / "image.ks").write_text("%include base.ks\n")
    assert read_kickstart(tmp_path / "image.ks").packages == ("bash",)


@pytest.mark.parametrize("file", sorted(Path(kickstarts.__path__[0]).glob("*.ks")), ids=lambda file: file.name)
def test_every_kickstart_that_distgate_ships_is_read(file: Path) -> None:
    definition = read_kickstart(file)
    assert bool(definition.ostree) != bool(definition.requests and definition.sources)


def test_an_ostree_to_deploy_is_read_in_place_of_packages() -> None:
    line = "ostreesetup --nogpg --osname=atomic --remote=here --url=http://trees.example.org/f41 --ref=fedora/f41"
    definition = read_text(f"{line}\npart / --size=2048\n")
    assert definition.ostree == OstreeSource("atomic", "here", "http://trees.example.org/f41", "fedora/f41")
    assert definition.requests == ()
