"""The flow that refreshes package lists: the site's block says what a branch is made of, and one failure is one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distgate.process import Completed, run
from distgate.rpm.repository import make_repository
from lab.servers.prefect_server import PrefectServer

SPEC = """\
Name: shell
Version: 1
Release: 1
Summary: shell
License: MIT
BuildArch: noarch
%description
shell
%files
"""
#: Saves the site's block and runs the flow, as a worker would.
PROGRAM = """
import sys
from blocks.ostree_repo import OSTreeRepo
from flows.package_lists import package_lists

scratch, site, *branches = sys.argv[1:]
trees = {name: f"{scratch}/{name}.yaml" for name in ("f43", "f44")}
OSTreeRepo(root=f"{scratch}/ostree", treefiles=trees, repositories={"small": f"{scratch}/RPMS"}).save(site)
sys.exit(not package_lists(branches or None, site, return_state=True).is_completed())
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "shell.spec").write_text(SPEC)
    run(["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {tmp_path}", tmp_path / "shell.spec"], timeout=60)
    make_repository(tmp_path / "RPMS")
    for branch, package in (("f43", "nosuch"), ("f44", "shell")):
        (tmp_path / f"{branch}.yaml").write_text(f"repos: [small]\npackages: [{package}]\n")
    (tmp_path / "lists").mkdir()
    return tmp_path


def refresh(server: PrefectServer, scratch: Path, *branches: str) -> Completed:
    own = {"DISTGATE_PACKAGE_LISTS": f"{scratch}/lists"}
    site = scratch.name.replace("_", "-").lower() + "-".join(branches)
    words = [sys.executable, "-c", PROGRAM, str(scratch), site, *branches]
    return run(words, timeout=300, env=server.environment | own, allowed=(0, 1))


@pytest.mark.lab
def test_lists_are_refreshed_from_the_sites_treefiles_and_one_that_cannot_be_is_alone(
    prefect_server: PrefectServer, scratch: Path
) -> None:
    said = refresh(prefect_server, scratch, "f43", "f44")
    assert said.returncode == 1, said.output
    assert "no repository has nosuch" in said.output
    assert [path.name for path in (scratch / "lists").iterdir()] == ["f44.txt"]
    assert "\nshell\n" in (scratch / "lists/f44.txt").read_text()

    (scratch / "lists/f44.txt").write_text((scratch / "lists/f44.txt").read_text().replace("\nshell\n", "\nold\n"))
    (scratch / "lists/f43.txt").write_text("dos2unix\n")
    again = refresh(prefect_server, scratch)
    assert again.returncode == 0, again.output
    assert "\nshell\n" in (scratch / "lists/f44.txt").read_text()
    assert (scratch / "lists/f43.txt").read_text() == "dos2unix\n"
