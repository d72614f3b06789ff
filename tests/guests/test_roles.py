"""What the parameters of our roles mean, without a guest; test_suite_on_guest.py runs the roles in one."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from distgate.guests.host import LibvirtGuest
from distgate.runners.ansible import ROLES, AnsibleSuites


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "suite_tests", ROLES / "distgate-suite" / "files" / "suite_tests.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


suite_tests = load()

#: The parameter `tests`, and name, directory, command, seconds, files to save, whether the directory must be there.
TESTS = {
    "a name is a directory with runtest.sh": (["sanity"], [("sanity", "sanity", "./runtest.sh", 0, (), True)]),
    "a name with a slash": (["clang/flags"], [("clang/flags", "clang/flags", "./runtest.sh", 0, (), True)]),
    "a mapping with everything": (
        [{"all": {"dir": "src", "run": "make check", "timeout": "15m", "save-files": ["a.log", "b"]}}],
        [("all", "src", "make check", 900, ("a.log", "b"), True)],
    ),
    "a command without a directory runs beside the playbook": (
        [{"smoke": {"run": "ls"}}],
        [("smoke", "smoke", "ls", 0, (), False)],
    ),
    "a mapping without settings": ([{"sanity": None}], [("sanity", "sanity", "./runtest.sh", 0, (), True)]),
    "several names in one mapping": (
        [{"a": {"dir": "."}, "b": {"dir": ".", "timeout": 5}}],
        [("a", ".", "./runtest.sh", 0, (), True), ("b", ".", "./runtest.sh", 5, (), True)],
    ),
    "no tests": ([], []),
}

WRONG = {
    "a mapping in place of a list": {"a": {"run": "b"}},
    "a number": [3],
    "settings that are no mapping": [{"a": "run"}],
    "a time in words": [{"a": {"run": "b", "timeout": "soon"}}],
}

DATA = {"tag": ["tier1", "slow"], "tier": 1, "component": "bash"}
FILTERS = {
    "tag: tier1": True,
    "tag: tier2": False,
    "tag: tier2, slow": True,
    "tag: tier1 & component: bash": True,
    "tag: tier1 & component: zsh": False,
    "tag: tier2 | tier: 1": True,
    "tag: -tier2": True,
    "tag: -slow": False,
    "distro: fedora": False,
    "distro: -fedora": True,
}

TREE = {
    "main.fmf": "test: ./runtest.sh\ntag: [base]\n",
    "one/main.fmf": "tag+: [tier1]\nduration: 5m\n",
    "two.fmf": "/fast: {test: ./fast.sh, tag: tier1}\n/slow: {test: ./slow.sh, tag: slow}\n",
    "off/main.fmf": "tag+: [tier1]\nenabled: false\n",
}


@pytest.mark.parametrize("case", TESTS)
def test_the_parameter_tests_takes_names_and_mappings(case: str) -> None:
    given, wanted = TESTS[case]
    found = suite_tests.tests_of(given)
    assert [(one.name, one.directory, one.command, one.seconds, one.save, one.needed) for one in found] == wanted


@pytest.mark.parametrize("case", WRONG)
def test_a_parameter_that_means_nothing_is_refused(case: str) -> None:
    with pytest.raises(suite_tests.Wrong):
        suite_tests.tests_of(WRONG[case])


@pytest.mark.parametrize("expression", FILTERS)
def test_an_fmf_filter_selects_by_attributes(expression: str) -> None:
    assert suite_tests.fits(expression, DATA) is FILTERS[expression]


def test_fmf_metadata_is_inherited_along_directories_and_names() -> None:
    found = suite_tests.filtered(TREE, "tag: tier1", "cloned")
    assert [(one.name, one.directory, one.command, one.seconds) for one in found] == [
        ("one", "cloned/one", "./runtest.sh", 300),
        ("two/fast", "cloned", "./fast.sh", 0),
    ]


def test_the_fmf_files_of_a_tree_are_found_but_no_hidden_ones_and_no_links(tmp_path: Path) -> None:
    for name in ("main.fmf", "a/b.fmf", ".hidden/c.fmf", "a/other.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("test: x\n")
    (tmp_path / "link.fmf").symlink_to("/etc/passwd")
    assert sorted(suite_tests.fmf_files(tmp_path)) == ["a/b.fmf", "main.fmf"]


def test_the_roles_are_those_that_suites_name() -> None:
    names = {path.parent.parent.name for path in ROLES.glob("*/tasks/main.yml")}
    assert names >= {"standard-test-basic", "standard-test-beakerlib", "standard-test-source"}


SPEC = """\
Name: tiny
Version: 1
Release: 1
Summary: A package with a source and a patch
License: MIT
Source0: tiny-1.tar.gz
Patch0: change.patch
BuildArch: noarch
%description
Nothing.
%prep
%autosetup -p1
%files
"""
PATCH = "--- a/word\n+++ b/word\n@@ -1 +1 @@\n-before\n+after\n"


@pytest.fixture
def srpm(tmp_path: Path) -> Path:
    """A source RPM whose one patch changes the only word of its source."""
    top = tmp_path / "rpm"
    (top / "SOURCES").mkdir(parents=True)
    with tarfile.open(top / "SOURCES" / "tiny-1.tar.gz", "w:gz") as archive:
        content = b"before\n"
        member = tarfile.TarInfo("tiny-1/word")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    (top / "SOURCES" / "change.patch").write_text(PATCH)
    (top / "tiny.spec").write_text(SPEC)
    subprocess.run(["rpmbuild", "-bs", "--define", f"_topdir {top}", top / "tiny.spec"], check=True)
    return next((top / "SRPMS").iterdir())


@pytest.mark.parametrize("given", [True, False])
def test_the_role_for_sources_unpacks_and_patches_the_package_that_was_built(
    tmp_path: Path, srpm: Path, given: bool
) -> None:
    (tmp_path / "key").write_text("no key")
    (tmp_path / "tests").mkdir()
    playbook = tmp_path / "tests" / "tests.yml"
    playbook.write_text(
        "- hosts: localhost\n  gather_facts: false\n  tags: [classic]\n"
        "  roles: [{role: standard-test-source, fetch_only: true}]\n"
        "  tasks:\n  - debug: {msg: \"word is {{ lookup('file', 'source/word') }}\"}\n"
    )
    guest = LibvirtGuest("guest-absent", 9, tmp_path / "key", tmp_path / "console.log")
    suites = AnsibleSuites(srpm=srpm if given else None)
    seen = suites.run(playbook, guest, tmp_path / "artifacts", {"git_branch": "f41"}, 120)
    said = (tmp_path / "artifacts" / "ansible.txt").read_text()
    assert seen.returncode == (0 if given else 2), said
    assert ("word is after" if given else "no source RPM was given") in said
    assert not (tmp_path / "tests" / "source").exists()
