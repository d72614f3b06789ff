"""Treefiles are read as rpm-ostree reads them, and what it would refuse is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distgate.errors import ConfigurationError
from distgate.ostree.treefile import HOME, Treefile, read_treefile, release_of, treefile_for

BRANCHES = ("f43", "f44", "f45", "rawhide")
Files = dict[str, str]


def written(into: Path, files: Files) -> Path:
    for name, text in files.items():
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_text(text)
    return into / "a.yaml"


READ: tuple[tuple[str, Files, dict[str, Any]], ...] = (
    ("words are packages each", {"a.yaml": "packages: [bash, zsh fish]"}, {"packages": ("bash", "fish", "zsh")}),
    (
        "but not in single quotes",
        {"a.yaml": "packages: [\"'podman >= 4.1'\", bash]"},
        {"packages": ("bash", "podman >= 4.1")},
    ),
    ("a package twice is one", {"a.yaml": "packages: [bash, bash]"}, {"packages": ("bash",)}),
    (
        "those of the architecture are added, of others not",
        {"a.yaml": "packages: [bash]\npackages-x86_64: [grub2]\npackages-aarch64: [uboot]"},
        {"packages": ("bash", "grub2")},
    ),
    (
        "variables",
        {"a.yaml": 'releasever: 44\nref: x/${releasever}/${basearch}/y\nautomatic-version-prefix: "${releasever}.0"'},
        {"ref": "x/44/x86_64/y", "release": "44", "version_prefix": "44.0"},
    ),
    ("the branch's release where the file has none", {"a.yaml": "ref: r"}, {"release": "41", "version_prefix": "41"}),
    (
        "lists of an include come first",
        {"a.yaml": "include: b.yaml\nunits: [x]", "b.yaml": "units: [y]"},
        {"units": ("y", "x")},
    ),
    ("single values of an include give way", {"a.yaml": "include: b.yaml\nref: x", "b.yaml": "ref: y"}, {"ref": "x"}),
    (
        "false is a value",
        {"a.yaml": "include: b.yaml\nrecommends: false", "b.yaml": "recommends: true"},
        {"recommends": False},
    ),
    (
        "scripts of later includes run before those of earlier ones",
        {
            "a.yaml": "include: [b.yaml, c.yaml]\npostprocess: [a]",
            "b.yaml": "postprocess: [b]",
            "c.yaml": "postprocess: [c]",
        },
        {"scripts": ("c", "b", "a")},
    ),
    (
        "the script in a file runs last, and is beside the treefile that names it",
        {
            "a.yaml": "include: sub/b.yaml\npostprocess: [a]",
            "sub/b.yaml": "postprocess-script: s.sh",
            "sub/s.sh": "s",
        },
        {"scripts": ("a", "s")},
    ),
    (
        "includes are relative to the file that includes",
        {"a.yaml": "include: sub/b.yaml", "sub/b.yaml": "include: c.yaml", "sub/c.yaml": "packages: [c]"},
        {"packages": ("c",)},
    ),
    (
        "includes for the architecture",
        {"a.yaml": "arch-include: {x86_64: b.yaml, s390x: none.yaml}", "b.yaml": "packages: [b]"},
        {"packages": ("b",)},
    ),
    (
        "a host by default",
        {"a.yaml": "{}"},
        {"bootable": True, "tmp_is_dir": False, "selinux": True, "empty_machine_id": True},
    ),
    ("a container is none", {"a.yaml": "container: true"}, {"bootable": False, "tmp_is_dir": True, "selinux": False}),
    (
        "old spellings",
        {"a.yaml": 'default_target: x.target\nautomatic_version_prefix: "7"'},
        {"default_target": "x.target", "version_prefix": "7"},
    ),
    ("JSON is YAML", {"a.yaml": '{"packages": ["bash"]}'}, {"packages": ("bash",)}),
    (
        "keys that rpm-ostree alone follows are remembered",
        {"a.yaml": "documentation: false\ninclude: b.yaml", "b.yaml": "install-langs: [en]"},
        {"beyond": ("documentation", "install-langs")},
    ),
    ("and so is a value of that kind", {"a.yaml": "boot-location: new"}, {"beyond": ("boot-location",)}),
    ("which kernels are in modules both know", {"a.yaml": "boot-location: modules"}, {"beyond": ()}),
    ("of users only rpm-ostree makes two files", {"a.yaml": "etc-group-members: [wheel]"}, {"beyond": ()}),
)


@pytest.mark.parametrize(("files", "expected"), [case[1:] for case in READ], ids=[case[0] for case in READ])
def test_a_treefile_means_what_it_means_to_rpm_ostree(tmp_path: Path, files: Files, expected: dict[str, Any]) -> None:
    treefile = read_treefile(written(tmp_path, files), "41")
    assert {name: getattr(treefile, name) for name in expected} == expected


REFUSED: tuple[tuple[str, Files, str], ...] = (
    ("an unknown key", {"a.yaml": "package: [bash]"}, "a.yaml: package is no key of a treefile"),
    ("in an include", {"a.yaml": "include: b.yaml", "b.yaml": "pakages: []"}, "b.yaml: pakages is no key"),
    ("a word for a list", {"a.yaml": "packages: bash"}, "packages is no list of texts"),
    ("a number among packages", {"a.yaml": "packages: [7]"}, "packages is no list of texts"),
    ("a word for a flag", {"a.yaml": 'recommends: "no"'}, "recommends is neither true nor false"),
    ("a list for a word", {"a.yaml": "ref: [x]"}, "ref is no text"),
    ("a flag for a release", {"a.yaml": "releasever: true"}, "releasever is neither a word nor a number"),
    ("an unknown variable", {"a.yaml": "ref: x/${stream}"}, "ref asks for ${stream}, which is not known"),
    (
        "a date as version",
        {"a.yaml": 'automatic-version-prefix: "1.<date:%Y>"'},
        "automatic-version-prefix has a date",
    ),
    ("no such include", {"a.yaml": "include: b.yaml"}, "b.yaml: cannot be read: No such file or directory"),
    ("a number as include", {"a.yaml": "include: 7"}, "include names no file"),
    ("itself", {"a.yaml": "include: a.yaml"}, "a.yaml: included more than once"),
    (
        "one file twice",
        {"a.yaml": "include: [b.yaml, c.yaml]", "b.yaml": "include: c.yaml", "c.yaml": "{}"},
        "c.yaml: included more than once",
    ),
    ("no mapping", {"a.yaml": "- bash"}, "a.yaml: is no mapping of keys to values"),
    ("no YAML", {"a.yaml": "packages: [bash"}, "a.yaml: line 1 column"),
    ("no such script", {"a.yaml": "postprocess-script: s.sh"}, "postprocess-script cannot be read"),
    ("architectures that are none", {"a.yaml": "arch-include: b.yaml"}, "arch-include is no mapping"),
)


@pytest.mark.parametrize(("files", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_treefile_is_refused_by_file_and_key(tmp_path: Path, files: Files, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_treefile(written(tmp_path, files), "41")
    assert words in str(refused.value)


def test_a_release_must_be_known_from_somewhere(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="releasever is missing"):
        read_treefile(written(tmp_path, {"a.yaml": "packages: [bash]"}))


@pytest.mark.parametrize("branch", BRANCHES)
def test_our_treefile_of_a_branch_has_the_ref_of_its_messages_and_boots(branch: str) -> None:
    treefile = read_treefile(treefile_for(branch), release_of(branch))
    assert treefile.ref == f"fedora/{branch}/x86_64/atomic-host"
    assert treefile.version_prefix == release_of(branch)
    needed = {"kernel", "rpm-ostree", "ostree-grub2", "systemd", "openssh-server", "podman", "cloud-init", "python3"}
    assert needed <= set(treefile.packages)
    assert (treefile.bootable, treefile.selinux, treefile.tmp_is_dir) == (True, True, True)
    assert not treefile.beyond, "both composers follow ours"


def test_every_treefile_belongs_to_a_branch_and_every_include_is_used() -> None:
    assert {path.stem for path in HOME.glob("*.yaml")} == {*BRANCHES, "lab"}
    used: set[Path] = set()
    for path in HOME.glob("*.yaml"):
        used |= _files_of(path)
    assert set((HOME / "include").glob("*.yaml")) <= used


def _files_of(path: Path) -> set[Path]:
    text = path.read_text()
    found = {include for include in (HOME / "include").glob("*.yaml") if include.name in text and include != path}
    return found.union(*(_files_of(include) for include in found))


@pytest.mark.parametrize("branch", ["rawhide", "main", "master"])
def test_the_development_branch_has_one_treefile_by_all_its_names(branch: str) -> None:
    assert treefile_for(branch) == HOME / "rawhide.yaml"
    assert release_of(branch) == "rawhide"


@pytest.mark.parametrize("branch", ["f27", "lab", "../trees/f44", ""])
def test_a_branch_without_a_treefile_is_refused_with_those_that_have_one(branch: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no treefile for branch .*\(there is one for f43, f44, f45, rawh"):
        treefile_for(branch)


def test_the_labs_treefile_is_of_any_branch() -> None:
    treefile: Treefile = read_treefile(HOME / "lab.yaml", release_of("f41"))
    assert (treefile.ref, treefile.version_prefix, treefile.beyond) == ("", "41", ())
