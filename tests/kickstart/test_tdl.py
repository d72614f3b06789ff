"""The template says to oz what was asked, whatever the texts hold, and is of the schema that oz ships."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from distgate.errors import ConfigurationError
from distgate.kickstart.tdl import ARCHITECTURES, install_tree, template
from distgate.process import on_path, run

NASTY = "a <&> \"b\" 'c' ]]> <!-- <?x?> &amp; %x; \u00fc \U0001f600"
TREE = "http://h/os/?a=1&b=2"

#: Name, release, architecture, address, password, size of the disk.
TEMPLATES = (
    ("distgate-f44", "44", "x86_64", TREE, None, None),
    ("distgate-rawhide", "rawhide", "aarch64", TREE, "secret", 8),
    (NASTY, "44", "x86_64", NASTY, NASTY, 20),
    ("a name", "45", "s390x", "file:///srv/os", " x\r\ny ", None),
)


@pytest.mark.parametrize(("name", "release", "arch", "url", "password", "disk"), TEMPLATES)
def test_a_reader_of_xml_gets_back_what_was_put_in(
    name: str, release: str, arch: str, url: str, password: str | None, disk: int | None
) -> None:
    root = ElementTree.fromstring(template(name, release, arch, url, password, disk))
    assert (root.tag, root.get("version")) == ("template", "1.0")
    assert root.findtext("name") == name
    assert root.findtext("os/name") == "Fedora"
    assert root.findtext("os/version") == release
    assert root.findtext("os/arch") == arch
    assert root.findtext("os/install/url") == url
    assert [install.get("type") for install in root.findall("os/install")] == ["url"]
    assert root.findtext("os/rootpw") == password
    assert root.findtext("disk/size") == (f"{disk}G" if disk else None)


@pytest.mark.parametrize("case", TEMPLATES, ids=[case[0] for case in TEMPLATES])
def test_the_schema_of_oz_accepts_it(tmp_path: Path, case: tuple[str, str, str, str, str | None, int | None]) -> None:
    schemas = sorted(Path("/usr/lib").glob("python3*/**/oz/tdl.rng"))
    if not schemas or not on_path("xmllint"):
        pytest.skip("oz (for its schema) and xmllint are not installed here")
    file = tmp_path / "image.tdl"
    file.write_text(template(*case), newline="")
    run(["xmllint", "--noout", "--relaxng", schemas[0], file], timeout=60)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_architecture_of_oz_can_be_asked_for(arch: str) -> None:
    assert f"<arch>{arch}</arch>" in template("x", "44", arch, TREE)


REFUSED = (
    ("an architecture that oz does not know", ("x", "44", "riscv64", TREE), "oz installs nothing for riscv64"),
    ("a release by its branch", ("x", "f44", "x86_64", TREE), "'f44' is no release that oz can compare"),
    ("a digit of another script", ("x", "4\u0664", "x86_64", TREE), "is no release"),
    ("a null byte", ("x\x00", "44", "x86_64", TREE), "the text of <name>"),
    ("an escape character", ("x", "44", "x86_64", "http://h/\x1b"), "the text of <url>"),
    ("half a character", ("x\ud800", "44", "x86_64", TREE), "the text of <name>"),
    ("no name", (" ", "44", "x86_64", TREE), "the text of <name> is empty"),
    ("no password", ("x", "44", "x86_64", TREE, ""), "the text of <rootpw> is empty"),
)


@pytest.mark.parametrize(("arguments", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_oz_or_xml_cannot_hold_is_refused(arguments: tuple[str, str, str, str], words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        template(*arguments)
    assert words in str(refused.value)


def test_a_refused_password_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as refused:
        template("x", "44", "x86_64", TREE, "hunter2\x00")
    assert "hunter2" not in str(refused.value)


TREES = (
    ("f44", "x86_64", "https://dl.fedoraproject.org/pub/fedora/linux/releases/44/Everything/x86_64/os/"),
    ("f45", "aarch64", "https://dl.fedoraproject.org/pub/fedora/linux/releases/45/Everything/aarch64/os/"),
    ("master", "x86_64", "https://dl.fedoraproject.org/pub/fedora/linux/development/rawhide/Everything/x86_64/os/"),
)


@pytest.mark.parametrize(("branch", "arch", "url"), TREES)
def test_the_tree_of_a_branch(branch: str, arch: str, url: str) -> None:
    assert install_tree(branch, arch) == url


def test_a_branch_without_a_tree_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no installation tree is known for branch epel9"):
        install_tree("epel9")
