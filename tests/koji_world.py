"""dist-git and the Koji hub stand-in, running in the test's process, and tiny packages to build there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from distgate.drivers.koji import KojiClient, KojiProfile
from distgate.process import run
from lab.bare_repository import Files, create_repository, push
from lab.build_root import BuildRoots
from lab.dist_git import DistGitServer
from lab.koji_hub import HubServer, make_server
from lab.package_builder import PackageBuilder
from lab.rpm_repository import ensure_repository

SPEC = """\
Name: tiny
Version: 1.2
Release: {release}
Summary: A package that builds in no time
License: MIT
{header}
%description
Nothing.
%prep
%build
{build}
%install
mkdir -p %{{buildroot}}/usr/share/tiny
echo hello >%{{buildroot}}/usr/share/tiny/hello
%files
/usr/share/tiny
"""


def spec(build: str = "true", header: str = "BuildArch: noarch", release: str = "3%{?dist}") -> str:
    return SPEC.format(build=build, header=header, release=release)


@dataclass(frozen=True)
class KojiWorld:
    """The two servers and a client that is in a hurry."""

    root: Path
    dist_git: DistGitServer
    hub: HubServer

    @property
    def profile(self) -> KojiProfile:
        return KojiProfile(
            server=f"{self.hub.url}/kojihub",
            topurl=f"{self.hub.url}/kojifiles",
            auth="password",
            user="koji",
            password="koji",
            timeout=20.0,
            retries=1,
            retry_interval=0.05,
            poll_interval=0.1,
            patience=20.0,
        )

    def client(self, **changes: object) -> KojiClient:
        return KojiClient(replace(self.profile, **changes))  # type: ignore[arg-type]

    def commit(self, text: str, files: Files | None = None) -> str:
        """Push a tiny package and return its source as Koji wants it."""
        repository = create_repository(self.root, "tiny")
        rev = push(repository, f"b{time.monotonic_ns()}", {"tiny.spec": text, **(files or {})}, "A change")
        return f"git+{self.dist_git.url}/rpms/tiny.git#{rev}"

    def source_package(self, text: str, room: Path, dist: str = ".fc9") -> Path:
        """The SRPM of a tiny package, made on this host."""
        (room / "tiny.spec").write_text(text)
        places = [word for name in ("topdir", "srcrpmdir") for word in ("--define", f"_{name} {room}")]
        run(["rpmbuild", "-bs", "--nodeps", *places, "--define", f"dist {dist}", room / "tiny.spec"], timeout=60)
        (made,) = room.glob("*.src.rpm")
        return made

    def fault(self, kind: str, count: int) -> None:
        """Let the hub's next calls fail."""
        httpx.post(f"{self.hub.url}/lab/fault/{kind}/{count}").raise_for_status()


@contextmanager
def koji_world(root: Path, cache: Path) -> Iterator[KojiWorld]:
    """Both servers, as long as the block lasts."""
    (root / "artifacts").mkdir()
    roots = BuildRoots(ensure_repository(cache, print), cache.resolve())
    with (
        DistGitServer(root, root / "artifacts") as dist_git,
        make_server(root / "koji", PackageBuilder(roots, dist_git.url)) as hub,
    ):
        yield KojiWorld(root, dist_git, hub)
