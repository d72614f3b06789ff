"""An installed root becomes a tree that OSTree deploys, and nothing beside it is touched."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from small_rpms import SmallRpm, make_repository
from tiny_trees import Packages

from distgate.errors import PackageError
from distgate.ostree.root_to_tree import Shape, Unshapely, make_tree
from distgate.rpm.nevra import read_rpms

PLAIN = Shape(bootable=False, tmp_is_dir=True, empty_machine_id=True)
TMPFILES = "usr/lib/tmpfiles.d/distgate-tree.conf"
DIRECTORIES = (
    *("usr/share", "usr/lib/sysimage/rpm", "etc", "var/lib/tool", "var/cache/tool"),
    *("root", "opt/tool", "tmp/x"),
)
FILES = ("etc/passwd", "etc/passwd-", "etc/machine-id", "var/lib/tool/data", "var/cache/tool/old", "root/.profile")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a few files, as an installation leaves it."""
    top = tmp_path / "root"
    for name in (
        "usr/share",
        "usr/lib/sysimage/rpm",
        "etc",
        "var/lib/tool",
        "var/cache/tool",
        "root",
        "opt/tool",
        "tmp/x",
    ):
        (top / name).mkdir(parents=True)
    for name in (
        "etc/passwd",
        "etc/passwd-",
        "etc/machine-id",
        "var/lib/tool/data",
        "var/cache/tool/old",
        "root/.profile",
    ):
        (top / name).write_text(name)
    (top / "opt/tool/a file").write_text("spaces")
    (top / "var/run").symlink_to("../run")
    os.mkfifo(top / "usr/share/fifo")
    return top


def test_what_belongs_to_the_machine_moves_out_of_the_tree(root: Path) -> None:
    make_tree(root, PLAIN)
    assert (root / "usr/etc/passwd").read_text() == "etc/passwd"
    assert not (root / "usr/etc/passwd-").exists()
    assert (root / "usr/etc/machine-id").read_text() == ""
    assert not (root / "usr/share/fifo").exists()
    assert list((root / "var").iterdir()) == []
    assert list((root / "tmp").iterdir()) == []
    assert (root / "usr/share/factory/var/lib/tool/data").read_text() == "var/lib/tool/data"
    assert (root / "usr/share/factory/var/roothome/.profile").read_text() == "root/.profile"
    assert not (root / "usr/share/factory/var/cache").exists()
    assert os.readlink(root / "usr/share/rpm") == "../../usr/lib/sysimage/rpm"


def test_the_rpm_database_can_be_read_where_nothing_can_be_written(root: Path) -> None:
    database = root / "usr/lib/sysimage/rpm/rpmdb.sqlite"
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE packages (name TEXT)")
    connection.commit()
    assert database.with_name("rpmdb.sqlite-wal").exists()
    connection.close()
    make_tree(root, PLAIN)
    assert sorted(path.name for path in database.parent.iterdir()) == ["rpmdb.sqlite"]
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert reader.execute("SELECT name FROM sqlite_master").fetchone() == ("packages",)


LINES = (
    "d /var/lib/tool 0755 0 0 -",
    "C /var/lib/tool/data - - - -",
    "d /var/cache/tool 0755 0 0 -",
    "L /var/run - - - - ../run",
    "C /var/roothome/.profile - - - -",
    'C "/var/opt/tool/a file" - - - -',
    "d /var/roothome 0700 0 0 -",
    "d /var/tmp 1777 0 0 -",
    "L /var/lib/rpm - - - - ../../usr/lib/sysimage/rpm",
)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.skipif(os.geteuid() != 0, reason="the owners are root's")
def test_the_first_boot_makes_it_again(root: Path, line: str) -> None:
    (root / "var/lib/tool").chmod(0o755)
    make_tree(root, PLAIN)
    assert line in (root / TMPFILES).read_text().splitlines()


def test_units_a_target_and_removals_are_as_the_treefile_says(root: Path) -> None:
    shape = Shape(False, False, False, ("a.service",), "b.target", ("/root/.profile", "/var/lib/tool", "/nosuch"))
    make_tree(root, shape)
    units = root / "usr/etc/systemd/system"
    assert os.readlink(units / "multi-user.target.wants/a.service") == "/usr/lib/systemd/system/a.service"
    assert os.readlink(units / "default.target") == "/usr/lib/systemd/system/b.target"
    assert os.readlink(root / "tmp") == "sysroot/tmp"
    assert not (root / "usr/etc/machine-id").exists()
    words = (root / TMPFILES).read_text()
    assert ".profile" not in words
    assert "/var/lib/tool" not in words


KERNELS = (
    ("none", (), "and this one has none"),
    ("two", ("1/vmlinuz", "1/initramfs.img", "2/vmlinuz", "2/initramfs.img"), "and this one has 1, 2"),
    ("without an initramfs", ("1/vmlinuz",), "kernel 1 has no initramfs.img"),
    ("one, whole", ("1/vmlinuz", "1/initramfs.img"), ""),
)


@pytest.mark.parametrize(("files", "words"), [case[1:] for case in KERNELS], ids=[case[0] for case in KERNELS])
def test_a_bootable_tree_has_one_kernel(root: Path, files: tuple[str, ...], words: str) -> None:
    for name in files:
        path = root / "usr/lib/modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    if not words:
        return make_tree(root, Shape(True, True, True))
    with pytest.raises(Unshapely, match=words):
        make_tree(root, Shape(True, True, True))
    return None


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    return Packages.built(tmp_path_factory.mktemp("packages"))


#: Links of a package to a directory of the host, at places that the shape writes to, and what comes of it.
HOSTILE = (
    ("usr/lib/tmpfiles.d", "make no OSTree"),
    ("usr/share/factory", "make no OSTree"),
    ("usr/local", ""),
    ("opt", ""),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="installing into a directory takes root")
@pytest.mark.parametrize(("place", "words"), HOSTILE)
def test_a_package_whose_links_lead_out_of_the_root_reaches_nothing_there(
    tmp_path: Path, packages: Packages, place: str, words: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("ours")
    link = f"mkdir -p %{{buildroot}}/{Path(place).parent}\nln -s {outside} %{{buildroot}}/{place}"
    data = f"{link}\nmkdir -p %{{buildroot}}/var/lib/bad\necho x > %{{buildroot}}/var/lib/bad/data"
    repository = make_repository(tmp_path, [SmallRpm("bad", install=data, files=f"/{place}\n/var/lib/bad")])
    built = [rpm.nevra for rpm in read_rpms(sorted(repository.rglob("*.rpm")))]
    trees, before = packages.branch(tmp_path / "f41")
    with pytest.raises(PackageError, match=words) if words else nullcontext():
        trees.compose(repository, built)
    assert (trees.head() == before.rev) is bool(words)
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("precious", "ours")]
