"""Small packages, each with one peculiarity, and the repository that holds them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distgate.process import run

#: A heading of its own: where ``%install`` ends is where the next line begins with a percent sign.
SPEC = """Name: {name}
Version: {version}
Release: {release}
Summary: {name}
License: MIT
BuildArch: noarch
{extra}
%global source_date_epoch_from_changelog 0
%description
{name}
%install
mkdir -p %{{buildroot}}/usr/share/{name}
{install}
%files
/usr/share/{name}
{files}
{scriptlets}
"""


@dataclass(frozen=True)
class SmallRpm:
    """A package to build: ``extra`` lines of its header, what ``install`` does, ``files`` lines, ``scriptlets``."""

    name: str
    extra: str = ""
    scriptlets: str = ""
    install: str = ""
    files: str = ""
    version: str = "1.0"
    release: str = "3"


def make_repository(top: Path, packages: Iterable[SmallRpm]) -> Path:
    """Build ``packages`` below ``top`` and return the directory with the RPMs and their repodata."""
    specs = []
    for package in packages:
        specs.append(top / f"{package.name}-{package.version}.spec")
        specs[-1].write_text(SPEC.format(**vars(package)))
    run(["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {top}", *specs], timeout=120)
    run(["createrepo_c", "-q", top / "RPMS"], timeout=60)
    return top / "RPMS"
