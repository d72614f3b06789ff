"""Our image definitions: one per kind and branch, whole without the network, accepted by ksvalidator itself."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion

from distgate.errors import ConfigurationError
from distgate.kickstart.definition import (
    HOME,
    Kind,
    definition_for,
    flatten,
    read_kickstart,
    read_text,
)
from distgate.kickstart.edit import with_ostree, with_packages_under_test, with_root_key
from distgate.kickstart.parser import parse
from distgate.kickstart.text import SECTIONS, kickstart_hash, outline
from distgate.process import run
from distgate.rpm.nevra import Nevra

#: Of each branch that has a definition; the newest that pykickstart knows where there is none.
SYNTAX = {"rawhide": "", "f43": "F43", "f44": "F44", "f45": "F45"}
KINDS: tuple[Kind, ...] = ("cloud", "atomic")
ALL = tuple((kind, branch) for kind in KINDS for branch in SYNTAX)
UNDER_TEST = (Nevra("dos2unix", 0, "7.5.2", "4.fc44", "x86_64", "dos2unix-7.5.2-4.fc44.src.rpm"), "kernel-core")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0 ci@example"

every_definition = pytest.mark.parametrize(("kind", "branch"), ALL, ids=[f"{k}-{b}" for k, b in ALL])


def ksvalidator(branch: str, *paths: Path) -> None:
    """The program that pykickstart ships, and that Fedora's own kickstarts are checked with."""
    program = Path(sys.executable).parent / "ksvalidator"
    syntax = SYNTAX[branch]
    said = run([program, *(["-v", syntax] if syntax else []), *paths], timeout=60)
    assert [line for line in said.output.splitlines() if line] == [
        f"Checking kickstart file {path}" for path in paths
    ]


def test_every_definition_belongs_to_a_kind_and_a_branch() -> None:
    found = {path.relative_to(HOME).as_posix() for path in HOME.rglob("*.ks")}
    loose = {name for name in found if not name.startswith("include/")}
    assert loose == {f"{kind}/{branch}.ks" for kind, branch in ALL} | {"lab-cloud.ks", "lab-atomic.ks"}


def test_every_include_is_used() -> None:
    used = {name for kind, branch in ALL for name in _files_of(definition_for(branch, kind))}
    assert {path.name for path in (HOME / "include").glob("*.ks")} <= used


def _files_of(path: Path) -> set[str]:
    words = [line.split() for line in path.read_text().splitlines()]
    wanted = [path.parent / line[1] for line in words if line[:1] == ["%include"]]
    return {path.name}.union(*(_files_of(file) for file in wanted))


@every_definition
def test_a_definition_is_valid_in_the_syntax_of_its_branch(tmp_path: Path, kind: Kind, branch: str) -> None:
    path = definition_for(branch, kind)
    whole = flatten(path)
    parse(whole, syntax=SYNTAX[branch], strict=True)
    file = tmp_path / "flat.ks"
    file.write_text(whole)
    ksvalidator(branch, path, file)


#: The inside of a %packages section is no kickstart by itself.
LISTS = {"cloud-packages.ks"}
FILES = [path for path in sorted(HOME.rglob("*.ks")) if path.name not in LISTS]


def test_every_file_is_accepted_by_ksvalidator() -> None:
    ksvalidator("rawhide", *FILES)


@every_definition
def test_a_flattened_definition_means_what_pykickstart_reads_from_the_files(kind: Kind, branch: str) -> None:
    path = definition_for(branch, kind)
    assert "%include" not in flatten(path)
    assert _read_by_pykickstart(path) == _read_by_pykickstart(flatten(path))


def _read_by_pykickstart(source: Path | str) -> str:
    handler: Any = makeVersion()
    parser = KickstartParser(handler)
    if isinstance(source, Path):
        parser.readKickstart(str(source))
    else:
        parser.readKickstartFromString(source)
    return str(handler)


@every_definition
def test_edited_definitions_are_valid_too(tmp_path: Path, kind: Kind, branch: str) -> None:
    text = with_root_key(flatten(definition_for(branch, kind)), KEY)
    if kind == "cloud":
        edited = with_packages_under_test(text, "http://10.0.2.2:8080/repo/", UNDER_TEST)
    else:
        ref = f"fedora/{branch}/x86_64/atomic-host"
        edited = with_ostree(text, "http://10.0.2.2:8080/ostree", "ci", "fedora-atomic", ref)
    file = tmp_path / "edited.ks"
    file.write_text(edited)
    ksvalidator(branch, file)
    assert read_text(edited).root_keys == (KEY,)


@pytest.mark.parametrize("branch", SYNTAX)
def test_a_cloud_image_can_be_logged_into_and_mounted_while_it_is_off(branch: str) -> None:
    definition = read_kickstart(definition_for(branch, "cloud"))
    plan = outline(flatten(definition_for(branch, "cloud")))
    assert {"openssh-server", "python3", "rsync", "util-linux", "dnf", "kernel-core"} <= set(definition.packages)
    assert "cloud-init" in definition.excluded
    assert "console=ttyS0" in definition.boot_arguments
    lines = [plan.lines[command.index].strip() for command in plan.commands]
    assert [line for line in lines if line.startswith(("part", "autopart", "logvol", "btrfs"))] == [
        "part / --fstype=ext4 --size=4096 --grow"
    ]
    assert "selinux --enforcing" in lines


MIRRORS = (
    ("rawhide", ("repo=rawhide&",)),
    ("f43", ("repo=fedora-43&", "repo=updates-released-f43&")),
    ("f44", ("repo=fedora-44&", "repo=updates-released-f44&")),
    ("f45", ("repo=fedora-45&", "repo=updates-released-f45&")),
)


@pytest.mark.parametrize(("branch", "repositories"), MIRRORS, ids=[case[0] for case in MIRRORS])
def test_packages_come_from_the_mirrors_of_their_release(branch: str, repositories: tuple[str, ...]) -> None:
    handler: Any = makeVersion()
    KickstartParser(handler).readKickstartFromString(flatten(definition_for(branch)))
    addresses = [handler.url.metalink, *(repo.metalink for repo in handler.repo.repoList)]
    base = "https://mirrors.fedoraproject.org/metalink?"
    assert addresses == [f"{base}{repository}arch=$basearch" for repository in repositories]


@pytest.mark.parametrize("branch", ["rawhide", "main", "master"])
def test_the_development_branch_is_one_by_all_its_names(branch: str) -> None:
    assert definition_for(branch, "atomic") == HOME / "atomic/rawhide.ks"


@pytest.mark.parametrize("branch", ["f27", "epel9", "../include/system", "", "F44"])
def test_a_branch_without_a_definition_is_refused_with_those_that_have_one(branch: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no cloud image for branch .*\(there is one for f43, f44, f45, raw"
    ):
        definition_for(branch)


def test_the_hash_is_that_of_the_flattened_text(tmp_path: Path) -> None:
    (tmp_path / "part.ks").write_text("text\n")
    (tmp_path / "image.ks").write_text("%include part.ks\n")
    before = kickstart_hash(flatten(tmp_path / "image.ks"))
    assert before == hashlib.sha256(b"text\n").hexdigest()
    (tmp_path / "part.ks").write_text("graphical\n")
    assert kickstart_hash(flatten(tmp_path / "image.ks")) != before


def test_sections_are_those_that_pykickstart_knows() -> None:
    assert set(KickstartParser(makeVersion())._sections) == SECTIONS


FLATTENED = (
    ("nothing to include", {"a.ks": "text # yes\r\n\n"}, "text # yes\r\n\n"),
    ("an include in its place", {"a.ks": "one\n%include b.ks\nthree\n", "b.ks": "two\n"}, "one\ntwo\nthree\n"),
    ("with a comment", {"a.ks": "%include b.ks # why\n", "b.ks": "two\n"}, "two\n"),
    ("with quotes", {"a.ks": '%include "b c.ks"\n', "b c.ks": "two\n"}, "two\n"),
    ("without a last newline", {"a.ks": "%include b.ks\nthree\n", "b.ks": "two"}, "two\nthree\n"),
    (
        "inside a section",
        {"a.ks": "%packages\n  %include b.ks\n%end\n", "b.ks": "bash\n"},
        "%packages\nbash\n%end\n",
    ),
    (
        "relative to the file that asks",
        {"a.ks": "%include sub/b.ks\n", "sub/b.ks": "%include c.ks\n", "sub/c.ks": "three\n"},
        "three\n",
    ),
    ("twice", {"a.ks": "%include b.ks\n%include b.ks\n", "b.ks": "two\n"}, "two\ntwo\n"),
    ("a word that only looks like it", {"a.ks": "%post\n%includes b.ks\n%end\n"}, "%post\n%includes b.ks\n%end\n"),
)


def _written(into: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_bytes(text.encode())
    return into / "a.ks"


@pytest.mark.parametrize(("files", "expected"), [case[1:] for case in FLATTENED], ids=[case[0] for case in FLATTENED])
def test_flattening_puts_includes_in_their_places(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert flatten(_written(tmp_path, files)) == expected


NOT_INCLUDED = (
    ("a file that is not there", {"a.ks": "text\n%include b.ks\n"}, "a.ks, line 2: there is no b.ks to include"),
    ("a directory", {"a.ks": "%include b\n", "b/c.ks": ""}, "a.ks, line 1: there is no b to include"),
    ("a path outside the tree", {"a.ks": "%include ../b.ks\n"}, "line 1: ../b.ks lies outside "),
    ("an absolute path", {"a.ks": "%include /etc/passwd\n"}, "line 1: /etc/passwd lies outside "),
    ("a URL", {"a.ks": "%include http://h/b.ks\n"}, "line 1: http://h/b.ks is on the network"),
    ("no name", {"a.ks": "%include\n"}, "line 1: %include wants the name of one file"),
    ("two names", {"a.ks": "%include b.ks c.ks\n"}, "line 1: %include wants the name of one file"),
    ("an open quote", {"a.ks": '%include "b.ks\n'}, "line 1: No closing quotation"),
    ("itself", {"a.ks": "%include a.ks\n"}, "line 1: a.ks includes itself"),
    ("a ring", {"a.ks": "%include b.ks\n", "b.ks": "\n%include a.ks\n"}, "b.ks, line 2: a.ks includes itself"),
    ("%ksappend", {"a.ks": "%ksappend http://h/b.ks\n"}, "line 1: %ksappend fetches text"),
    (
        "%ksappend in a script, where ksvalidator fetches it as well",
        {"a.ks": "%include b.ks\n", "b.ks": "%post\n  %ksappend http://h/\n%end\n"},
        "b.ks, line 2: %ksappend fetches text",
    ),
)


@pytest.mark.parametrize(
    ("files", "words"), [case[1:] for case in NOT_INCLUDED], ids=[case[0] for case in NOT_INCLUDED]
)
def test_what_cannot_be_included_is_refused(tmp_path: Path, files: dict[str, str], words: str) -> None:
    (tmp_path / "b.ks").write_text("outside\n")
    (tmp_path / "tree").mkdir()
    path = _written(tmp_path / "tree", files)
    with pytest.raises(ConfigurationError) as refused:
        flatten(path)
    assert words in str(refused.value)


def test_a_link_that_leads_out_of_the_tree_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "secret").write_text("text\n")
    (tmp_path / "tree/b.ks").symlink_to(tmp_path / "secret")
    (tmp_path / "tree/a.ks").write_text("%include b.ks\n")
    with pytest.raises(ConfigurationError, match="lies outside tree/"):
        flatten(tmp_path / "tree/a.ks")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ks").write_bytes(b"text\n\xff\n")
    with pytest.raises(ConfigurationError, match=r"a\.ks is no UTF-8 text: invalid start byte at byte 5"):
        flatten(tmp_path / "a.ks")


def test_an_error_in_an_included_file_names_that_file_and_its_line(tmp_path: Path) -> None:
    (tmp_path / "part.ks").write_text("text\n\nbogus\n")
    (tmp_path / "image.ks").write_text("# one\n%include part.ks\n")
    with pytest.raises(ConfigurationError, match=r"^part\.ks, line 3: Unknown command: bogus"):
        read_kickstart(tmp_path / "image.ks")


INVALID = (
    ("an unknown command", "bogus\n", "F44", "line 1: Unknown command: bogus"),
    ("a command of later releases", "bootc --source-imgref=x\n", "F41", "line 1: Unknown command: bootc"),
    ("a deprecated option", "%packages --excludeWeakdeps\n%end\n", "F44", "excludeWeakdeps"),
    ("an unknown syntax", "text\n", "F999", "F999"),
    ("a quoted include, which pykickstart would follow", '"%include" /etc/passwd\n', "", "%include is left over"),
    ("a lone minus among packages", "%packages\n-\n%end\n", "", "kickstart"),
)


@pytest.mark.parametrize(
    ("text", "syntax", "words"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID]
)
def test_what_ksvalidator_refuses_is_invalid(text: str, syntax: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse(text, syntax=syntax, strict=True)
    assert words in str(refused.value)
