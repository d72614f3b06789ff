"""A compose installs exactly what it was given, or says in dnf's words why not, and leaves nothing behind."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository

from distgate.errors import InfrastructureError, PackageError
from distgate.images.base import BaseImage
from distgate.images.contents import installed_in
from distgate.images.layered import OfflineInstaller
from distgate.process import run
from distgate.rpm.dnf_output import at_fault
from distgate.rpm.nevra import Nevra, read_rpms

PACKAGES = (
    SmallRpm("plain", extra="Requires: companion", scriptlets="%post\nls -ld /proc/self/ && : > /dev/null"),
    SmallRpm("companion", extra="Epoch: 2"),
    SmallRpm("lonely", extra="Requires: nosuch-thing >= 3"),
    SmallRpm("badpost", scriptlets="%post\necho the disk is purple >&2; exit 3"),
    SmallRpm("badpre", scriptlets="%pre\nexit 4"),
    SmallRpm("clash", extra="Conflicts: bash"),
    SmallRpm("usurper", extra="Obsoletes: replaced < 9"),
    SmallRpm("replaced"),
    SmallRpm("hanging", scriptlets="%post\nsleep 3600"),
    SmallRpm("needy", extra="Requires: unzip"),
    SmallRpm("less"),
    # Three flavours of which one can be there, something that wants one of them, and a fourth that shares a file.
    SmallRpm("flavour", extra="Conflicts: flavour-mild\nConflicts: flavour-hot"),
    SmallRpm("flavour-mild", extra="Conflicts: flavour-hot"),
    SmallRpm("flavour-hot"),
    SmallRpm("flavour-tools", extra="Requires: flavour"),
    SmallRpm("one", install="echo one > %{buildroot}/usr/share/shared", files="/usr/share/shared"),
    SmallRpm("two", install="echo two > %{buildroot}/usr/share/shared", files="/usr/share/shared"),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("rpms"), PACKAGES)


@pytest.fixture(scope="module")
def built(repository: Path) -> dict[str, Nevra]:
    return {rpm.nevra.name: rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))}


@contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def left_behind(directory: Path) -> list[str]:
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]
    loops = run(["losetup", "-a"], timeout=10).output.splitlines()
    return [*mounts, *(line for line in loops if str(directory) in line)]


def test_the_packages_and_their_dependencies_are_read_back_from_the_image(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["plain"]], tmp_path / "image.qcow2")
    assert {built["plain"], built["companion"]} <= set(image.installed)
    assert image.requested == (built["plain"],)
    assert (image.base, image.backing) == (base_image.identity, base_image.path)
    assert image.size == (tmp_path / "image.qcow2").stat().st_size < 64 << 20
    assert "Complete!" in image.transaction
    assert [path.name for path in tmp_path.iterdir()] == ["image.qcow2"]
    assert not left_behind(tmp_path)


def test_dependencies_come_from_the_bases_own_repositories(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built["needy"]], tmp_path / "image.qcow2")
    assert "unzip" in {package.name for package in image.installed}


def test_a_repository_behind_http_is_fetched_from_before_the_network_goes(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with served(Path(base_image.repositories[0])) as url:
        base = replace(base_image, repositories=(url,))
        wanted = [built["needy"], built["plain"]]
        image = OfflineInstaller().compose(base, repository, wanted, tmp_path / "image.qcow2")
    assert {"unzip", "plain"} <= {package.name for package in image.installed}


def test_what_the_base_has_already_is_replaced_whichever_is_newer(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    first = OfflineInstaller().compose(base_image, repository, [built["companion"]], tmp_path / "first.qcow2")
    assert first.forced == ()
    grown = replace(base_image, path=first.path, identity="grown")
    wanted = [built["companion"], built["less"]]
    second = OfflineInstaller().compose(grown, repository, wanted, tmp_path / "second.qcow2")
    assert set(wanted) <= set(second.installed)
    assert {(one.package.name, one.action) for one in second.forced} == {
        ("companion", "reinstall"),
        ("less", "downgrade"),
    }
    assert [one.replaced for one in second.forced if one.action == "downgrade"] == [
        package for package in first.installed if package.name == "less"
    ]


#: What was built, what of it is left out, and words of the reason.
CHOICES = (
    (
        ("flavour", "flavour-mild", "flavour-hot", "flavour-tools"),
        {"flavour-mild": "flavour", "flavour-hot": "flavour"},
    ),
    (("one", "plain", "two"), {"two": "conflicts with file|conflicts between|conflicts"}),
    (("plain", "replaced", "usurper"), {"usurper": "together with replaced"}),
)


@pytest.mark.parametrize(("names", "left_out"), CHOICES, ids=[names[0] for names, _ in CHOICES])
def test_of_packages_that_exclude_one_another_the_greatest_set_is_installed(
    base_image: BaseImage,
    repository: Path,
    built: dict[str, Nevra],
    tmp_path: Path,
    names: tuple[str, ...],
    left_out: dict[str, str],
) -> None:
    image = OfflineInstaller().compose(base_image, repository, [built[n] for n in names], tmp_path / "image.qcow2")
    assert {one.package.name for one in image.omitted} == set(left_out)
    assert {package.name for package in image.requested} == set(names) - set(left_out)
    for one in image.omitted:
        assert re.search(left_out[one.package.name], one.reason)
        assert one.package not in image.installed


def test_what_excludes_an_earlier_build_in_the_base_is_left_out_and_named(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    old = make_repository(tmp_path / "old", [SmallRpm("flavour-hot", version="0.9", extra="Conflicts: flavour")])
    earlier = [rpm.nevra for rpm in read_rpms(sorted(old.rglob("*.rpm")))]
    first = OfflineInstaller().compose(base_image, old, earlier, tmp_path / "first.qcow2")
    grown = replace(base_image, path=first.path, identity="grown")
    names = ("flavour", "flavour-mild", "flavour-hot", "flavour-tools")
    image = OfflineInstaller().compose(grown, repository, [built[n] for n in names], tmp_path / "image.qcow2")
    assert image.requested == (built["flavour-hot"],)
    assert {one.package.name for one in image.omitted} == {"flavour", "flavour-mild", "flavour-tools"}
    assert all("which the base has already" in one.reason for one in image.omitted)
    with pytest.raises(PackageError, match="conflicts with"):
        OfflineInstaller().compose(grown, repository, [built["flavour"]], tmp_path / "alone.qcow2")


REFUSED = (
    (("lonely",), "nothing provides nosuch-thing >= 3 needed by lonely-1.0-3.noarch"),
    (("clash",), "conflicts with"),
    (("badpre",), r"%prein\(badpre-1.0-3.noarch\) scriptlet failed, exit status 4"),
    (("badpost",), "the disk is purple"),
    (("plain", "badpost"), r"%post\(badpost-1.0-3.noarch\) scriptlet failed, exit status 3"),
    (("plain", "lonely"), "lonely-0:1.0-3.noarch cannot be installed: nothing provides nosuch-thing >= 3"),
)


@pytest.mark.parametrize(("names", "words"), REFUSED, ids=["-".join(names) for names, _ in REFUSED])
def test_packages_that_cannot_be_installed_are_to_blame_in_dnfs_words(
    base_image: BaseImage,
    repository: Path,
    built: dict[str, Nevra],
    tmp_path: Path,
    names: tuple[str, ...],
    words: str,
) -> None:
    with pytest.raises(PackageError) as refused:
        OfflineInstaller().compose(base_image, repository, [built[n] for n in names], tmp_path / "image.qcow2")
    assert re.search(words, f"{refused.value} {refused.value.evidence}")
    assert list(tmp_path.iterdir()) == []
    assert not left_behind(tmp_path)


def test_a_package_that_is_not_in_the_repository_is_our_mistake(
    base_image: BaseImage, repository: Path, tmp_path: Path
) -> None:
    unknown = Nevra("unknown", 0, "1", "1", "noarch")
    with pytest.raises(InfrastructureError, match="unknown-0:1-1"):
        OfflineInstaller().compose(base_image, repository, [unknown], tmp_path / "image.qcow2")


def test_a_repository_that_is_gone_is_infrastructure(
    base_image: BaseImage, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with pytest.raises(InfrastructureError):
        OfflineInstaller().compose(base_image, tmp_path / "nowhere", [built["less"]], tmp_path / "image.qcow2")


def test_a_base_image_that_is_no_image_is_infrastructure(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    (tmp_path / "base.qcow2").write_bytes(b"QFI, almost")
    broken = replace(base_image, path=tmp_path / "base.qcow2")
    with pytest.raises(InfrastructureError):
        OfflineInstaller().compose(broken, repository, [built["less"]], tmp_path / "image.qcow2")
    assert not left_behind(tmp_path)


def test_a_hanging_scriptlet_is_named_when_it_is_killed_at_the_deadline(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=r"a scriptlet of hanging-1.0-3.noarch hangs: .* 25 s") as late:
        OfflineInstaller(timeout=25).compose(base_image, repository, [built["hanging"]], tmp_path / "image.qcow2")
    assert "Running scriptlet: hanging" in late.value.evidence
    assert list(tmp_path.iterdir()) == []
    assert not left_behind(tmp_path)


def test_two_at_once_do_not_disturb_each_other(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    with ThreadPoolExecutor() as pool:
        images = [
            pool.submit(OfflineInstaller().compose, base_image, repository, [built[name]], tmp_path / f"{name}.qcow2")
            for name in ("plain", "less")
        ]
        plain, less = (image.result() for image in images)
    assert {built["plain"], built["less"]} & set(plain.installed) == {built["plain"]}
    assert {built["plain"], built["less"]} & set(less.installed) == {built["less"]}


def test_every_step_is_told_while_it_goes_on_and_timed(
    base_image: BaseImage, repository: Path, built: dict[str, Nevra], tmp_path: Path
) -> None:
    lines: list[str] = []
    image = OfflineInstaller().compose(
        base_image, repository, [built["companion"]], tmp_path / "image.qcow2", lines.append
    )
    assert {"mount ...", "read back ..."} <= set(lines)
    assert [step.name for step in image.steps] == [
        *("prepare", "open image", "mount", "read database", "solve", "transaction", "read back"),
        *("unmount", "close image"),
    ]
    assert all(step.seconds >= 0 for step in image.steps)


def test_the_packages_of_an_image_are_read_without_changing_it(base_image: BaseImage) -> None:
    before = base_image.path.stat().st_mtime_ns
    assert "bash" in {package.name for package in installed_in(base_image.path, base_image.root_offset)}
    assert base_image.path.stat().st_mtime_ns == before


SAID = (
    ("Error: \n Problem: conflicting requests\n  - nothing provides x needed by y", "package"),
    (
        "Error: Transaction test error:\n  file /usr/bin/x from install of a conflicts with file from package b",
        "package",
    ),
    ("error: %prein(a-1-1.noarch) scriptlet failed, exit status 4", "package"),
    ("error: unpacking of archive failed on file /usr/bin/x: cpio: read failed", "package"),
    (
        "error: unpacking of archive failed on file /usr/x: cpio: write failed - No space left on device",
        "infrastructure",
    ),
    ("At least 300MB more space needed on the / filesystem.", "image-full"),
    ("At least 300MB more space needed on the /run/distgate/cache filesystem.", "infrastructure"),
    ("Error: Failed to download metadata for repo 'base-0': Cannot download repomd.xml", "infrastructure"),
    ("Error: Unable to find a match: x-0:1-1.noarch", "infrastructure"),
    ("Traceback (most recent call last):", "infrastructure"),
    ("", "infrastructure"),
)


@pytest.mark.parametrize(("said", "blame"), SAID)
def test_the_words_of_dnf_tell_who_is_to_blame(said: str, blame: str) -> None:
    assert at_fault(said) == blame
