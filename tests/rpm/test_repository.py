"""A directory of RPMs becomes a repository that dnf reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgate.errors import InfrastructureError
from distgate.process import run
from distgate.rpm.repository import make_repository

SPEC = "Name: {0}\nVersion: 1\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n%files\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "one.spec").write_text(SPEC.format("one"))
    target = tmp_path / "repository"
    run(
        ["rpmbuild", "-ba", "-D", f"_topdir {tmp_path}", "-D", f"_rpmdir {target}", tmp_path / "one.spec"], timeout=60
    )
    for made in [*target.rglob("*.rpm"), *(tmp_path / "SRPMS").glob("*.rpm")]:
        made.rename(target / made.name)
    return target


def listed(directory: Path) -> list[str]:
    config = directory.parent / "dnf.conf"
    config.write_text(f"[main]\nreposdir=/nonexistent\ncachedir={directory.parent / 'cache'}\n")
    options = [f"--config={config}", f"--repofrompath=x,file://{directory}", "--refresh", "--quiet", "--repo=x"]
    said = run(["dnf", *options, "--releasever=1", "repoquery"], timeout=60, split_errors=True)
    return said.output.split()


def test_dnf_finds_the_binary_packages(directory: Path) -> None:
    make_repository(directory)
    assert listed(directory) == ["one-0:1-1.noarch"]


def test_making_it_again_follows_what_is_there(directory: Path) -> None:
    make_repository(directory)
    (directory / "one-1-1.noarch.rpm").unlink()
    make_repository(directory)
    assert listed(directory) == []


def test_a_missing_directory_is_told_in_the_tools_words(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as failed:
        make_repository(tmp_path / "nowhere")
    assert "nowhere" in failed.value.evidence
