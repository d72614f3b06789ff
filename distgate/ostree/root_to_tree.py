"""A root that packages were installed into becomes a tree that OSTree deploys.

Strangers' packages made its links, so it is changed where nothing else can be reached: the caller starts this module
confined (distgate.sandbox.bubblewrap_rpm). Run as ``python -m distgate.ostree.root_to_tree ROOT FACTS.json``; it
exits with 3 and a sentence on standard error when the root cannot become such a tree.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from distgate.files import remove_tree, walk

REFUSED = 3
DATABASE = "usr/lib/sysimage/rpm"
_TMPFILES = "usr/lib/tmpfiles.d/distgate-tree.conf"
#: Where systemd-tmpfiles' C lines copy from, unless they say.
_FACTORY = "usr/share/factory"

#: What is a link in a tree, and what it leads to. The machine's own files are below /var.
_LINKS = {
    "home": "var/home",
    "root": "var/roothome",
    "opt": "var/opt",
    "srv": "var/srv",
    "mnt": "var/mnt",
    "media": "run/media",
    "usr/local": "../var/usrlocal",
    "ostree": "sysroot/ostree",
}
_EMPTY = ("boot", "dev", "proc", "run", "sys", "sysroot", "var")
#: Of these below /var only the directories are kept.
_PASSING = ("cache", "log", "tmp", "lib/rpm", "lib/dnf")
#: What every machine has below /var, and with which mode, unless a package says otherwise.
_USUAL = dict.fromkeys(("home", "opt", "srv", "mnt", "usrlocal", "log", "log/journal", "lib", "cache"), 0o755) | {
    "roothome": 0o700,
    "tmp": 0o1777,
}


@dataclass(frozen=True)
class Shape:
    """What of a treefile changes the root's shape; the fields mean what Treefile's of the same names do."""

    bootable: bool
    tmp_is_dir: bool
    empty_machine_id: bool
    units: tuple[str, ...] = ()
    default_target: str = ""
    removed: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Unshapely(Exception):
    """The root cannot become a tree; the text says why."""


def main() -> int:
    """Shape the root; 0 when it is a tree."""
    facts = json.loads(Path(sys.argv[2]).read_text())
    try:
        make_tree(Path(sys.argv[1]), Shape(**facts))
    except (Unshapely, OSError, sqlite3.Error) as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


def make_tree(root: Path, shape: Shape) -> None:
    """Bring ``root`` into the shape that OSTree deploys. Raises Unshapely or OSError."""
    _remove(root, shape.removed)
    _remove_special_files(root)
    if shape.bootable:
        _check_kernel(root)
    _enable(root, shape)
    lines = [*_moved_to_var(root), *_emptied_var(root)]
    _link(root)
    _move_etc(root, shape)
    _make_tmp(root, shape.tmp_is_dir)
    _write(root / _TMPFILES, "".join(f"{line}\n" for line in lines))


def _remove(root: Path, names: tuple[str, ...]) -> None:
    for name in names:
        _discard(root / name.lstrip("/"))


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_special_files(root: Path) -> None:
    """Commits hold files, directories and links alone."""
    for path, seen in _below(root):
        if not (stat.S_ISREG(seen.st_mode) or stat.S_ISLNK(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
            path.unlink()


def _below(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below ``top`` with what lstat says; a directory comes before what it holds."""
    return ((top / entry.path, entry.status) for entry in walk(top))


def _check_kernel(root: Path) -> None:
    kernels = sorted(root.glob("usr/lib/modules/*/vmlinuz"))
    if len(kernels) != 1:
        versions = ", ".join(kernel.parent.name for kernel in kernels) or "none"
        raise Unshapely(f"a bootable tree has one kernel, and this one has {versions}")
    if not kernels[0].with_name("initramfs.img").is_file():
        raise Unshapely(f"kernel {kernels[0].parent.name} has no initramfs.img beside it")


def _enable(root: Path, shape: Shape) -> None:
    units = root / "etc/systemd/system"
    for unit in shape.units:
        _relink(units / "multi-user.target.wants" / unit, f"/usr/lib/systemd/system/{unit}")
    if shape.default_target:
        _relink(units / "default.target", f"/usr/lib/systemd/system/{shape.default_target}")


def _relink(link: Path, target: str) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    _discard(link)
    link.symlink_to(target)


def _moved_to_var(root: Path) -> Iterator[str]:
    """What packages put where a tree has links goes to the factory, from where the first boot copies it."""
    for name, target in _LINKS.items():
        path = root / name
        if target.startswith(("var/", "../var/")) and path.is_dir() and not path.is_symlink():
            yield from _factory_lines(root, path, target.removeprefix("../"))


def _emptied_var(root: Path) -> Iterator[str]:
    """A line for systemd-tmpfiles for everything in /var, which is empty in a commit."""
    var = root / "var"
    database = root / DATABASE
    if (var / "lib/rpm").is_dir() and not (var / "lib/rpm").is_symlink() and not database.exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        (var / "lib/rpm").rename(database)
    if database.is_dir():
        _settle(database / "rpmdb.sqlite")
        _discard(var / "lib/rpm")
        yield f"L /var/lib/rpm - - - - ../../{DATABASE}"
        share = root / "usr/share/rpm"
        if not os.path.lexists(share):
            _relink(share, f"../../{DATABASE}")
    for name, mode in _USUAL.items():
        if not (var / name).is_dir() or (var / name).is_symlink():
            yield f"d /var/{name} {mode:04o} 0 0 -"
    yield from _factory_lines(root, var, "var")


def _settle(database: Path) -> None:
    """End SQLite's write-ahead log: its files differ in each commit, and readers on a read-only /usr need them."""
    if database.is_file() and not database.is_symlink():
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")
    for ending in ("-shm", "-wal"):
        _discard(database.with_name(f"{database.name}{ending}"))


def _factory_lines(root: Path, directory: Path, target: str) -> Iterator[str]:
    for path, seen in _below(directory):
        below = str(path.relative_to(directory))
        quoted = f'"/{target}/{below}"' if " " in below else f"/{target}/{below}"
        if stat.S_ISDIR(seen.st_mode):
            yield f"d {quoted} {stat.S_IMODE(seen.st_mode):04o} {seen.st_uid} {seen.st_gid} -"
        elif stat.S_ISLNK(seen.st_mode):
            yield f"L {quoted} - - - - {os.readlink(path)}"
        elif not (target == "var" and f"{below}/".startswith(tuple(f"{name}/" for name in _PASSING))):
            factory = root / _FACTORY / target / below
            factory.parent.mkdir(parents=True, exist_ok=True)
            path.rename(factory)
            yield f"C {quoted} - - - -"


def _link(root: Path) -> None:
    for name in (*_EMPTY, *_LINKS):
        _discard(root / name)
    for name in _EMPTY:
        (root / name).mkdir(mode=0o755)
    for name, target in _LINKS.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(target)


def _move_etc(root: Path, shape: Shape) -> None:
    etc = root / "etc"
    if etc.is_symlink():
        raise Unshapely("/etc is a link")
    etc.mkdir(exist_ok=True)
    machine_id = etc / "machine-id"
    _discard(machine_id)
    if shape.empty_machine_id:
        _write(machine_id, "")
    for name in ("passwd-", "group-", "shadow-", "gshadow-", ".pwd.lock", "ld.so.cache~"):
        with suppress(FileNotFoundError):
            (etc / name).unlink()
    _discard(root / "usr/etc")
    etc.rename(root / "usr/etc")


def _make_tmp(root: Path, directory: bool) -> None:
    tmp = root / "tmp"
    _discard(tmp)
    if directory:
        tmp.mkdir()
        tmp.chmod(0o1777)
    else:
        tmp.symlink_to("sysroot/tmp")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _discard(path)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
