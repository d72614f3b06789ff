"""Which package owns which file of a Debian root, and a sensible owner for files that no deb lists."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.distribution.dpkg import DebPackage

#: Owns the directories that many share and every file that no other package claims; everything requires it.
LEFTOVERS = "lab-filesystem"
#: Owns the user database, which has to exist before the first file with another owner is unpacked.
SETUP = "setup"

_USERS = ("/etc/passwd", "/etc/group")
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# Neither Debian's own package management nor anything that belongs to one host goes into an RPM.
_IGNORED = (
    "/lab/", "/var/lib/apt/", "/var/lib/dpkg/", "/var/lib/ucf/", "/var/lib/pam/", "/var/lib/rpm/",
    "/var/lib/systemd/deb-", "/var/lib/shells.state", "/usr/share/bug/", "/usr/share/lintian/", "/usr/share/info/",
    "/usr/lib/udev/hwdb.bin", "/etc/apt/", "/etc/dpkg/", "/etc/ssh/ssh_host_",
    "/etc/systemd/system/timers.target.wants/apt-", "/etc/.pwd.lock", "/etc/group-", "/etc/gshadow-",
    "/etc/passwd-", "/etc/shadow-", "/etc/subgid-", "/etc/subuid-", "/etc/fstab", "/etc/hostname", "/etc/hosts",
    "/etc/ld.so.cache", "/etc/machine-id", "/etc/motd", "/etc/resolv.conf",
)  # fmt: skip
#: Directories of which only the name is kept.
_EMPTIED = ("/boot", "/dev", "/proc", "/run", "/sys", "/tmp", "/var/cache", "/var/log", "/var/tmp")  # noqa: S108 - names in an image

_SHARED_BY = 5


@dataclass(frozen=True)
class Owned:
    """One line of a package's file list: a path, and what lstat says about it."""

    path: str
    mode: int
    uid: int
    gid: int

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


def assign_files(
    root: Path, packages: Mapping[str, DebPackage], dropped: Iterable[str], extra: Mapping[str, Iterable[str]]
) -> dict[str, list[Owned]]:
    """Every file of ``root`` by the name of the package that shall own it.

    ``extra`` names files of packages that dpkg does not know; packages of ``dropped`` lose their files, but for
    the links that lead to a package that stays (/usr/bin/sh leads to bash).
    """
    lists = {name: package.files for name, package in packages.items()} | {n: tuple(f) for n, f in extra.items()}
    claims = _Claims(root, lists, frozenset(dropped))
    result: dict[str, list[Owned]] = defaultdict(list)
    for file in _walk(root):
        for owner in claims.owners(file):
            result[owner].append(file)
    return dict(result)


def after_usr_merge(root: Path, path: str) -> str:
    """The path under which a file that dpkg lists really lies (/bin/ls: /usr/bin/ls)."""
    head, slash, rest = path.lstrip("/").partition("/")
    if slash and head in _MERGED and (root / head).is_symlink():
        return f"/{os.readlink(root / head)}/{rest}"
    return path


def resolve(root: Path, path: str, limit: int = 20) -> str:
    """Follow a link inside ``root``, absolute targets included, to the path it ends at."""
    for _ in range(limit):
        full = root / path.lstrip("/")
        if not full.is_symlink():
            return path
        target = PurePosixPath(path).parent / os.readlink(full)
        path = after_usr_merge(root, os.path.normpath(target))
    return path


class _Claims:
    """Which packages list which path; gives the owner of a file."""

    def __init__(self, root: Path, lists: Mapping[str, Iterable[str]], dropped: frozenset[str]) -> None:
        self.root = root
        self.owner_of: dict[str, str] = {}
        self.dropped: set[str] = set()
        self.sharers: dict[str, set[str]] = defaultdict(set)
        for name, files in lists.items():
            for path in (after_usr_merge(root, file) for file in files):
                if name in dropped:
                    self.dropped.add(path)
                else:
                    self.owner_of.setdefault(path, name)
                    self.sharers[path].add(name)

    def owners(self, file: Owned) -> Iterable[str]:
        path = file.path
        if path in _USERS:
            return (SETUP,)
        if path.lstrip("/") in _MERGED:
            return (LEFTOVERS,)  # before a file is unpacked below /bin
        if file.is_directory:
            return self._directory(path)
        owner = self.owner_of.get(path) or self._by_origin(path)
        if owner:
            return (owner,)
        return () if path in self.dropped else (LEFTOVERS,)

    def _directory(self, path: str) -> Iterable[str]:
        if path.endswith("/__pycache__"):
            return ()  # it comes and goes with its files
        names = self.sharers.get(path, set())
        if 0 < len(names) < _SHARED_BY:
            return sorted(names)
        return () if not names and path in self.dropped else (LEFTOVERS,)

    def _by_origin(self, path: str) -> str | None:
        """The owner of what an unlisted file was made from: a link's target, a compiled module's source."""
        if path.endswith(".pyc"):
            parent = PurePosixPath(path).parent
            return self.owner_of.get(f"{parent.parent}/{PurePosixPath(path).name.split('.')[0]}.py")
        end = resolve(self.root, path)
        if end == path or (self.root / end.lstrip("/")).is_dir():
            return None
        return self.owner_of.get(end)


def _walk(root: Path) -> Iterator[Owned]:
    for directory, names, files in os.walk(root):
        here = directory[len(str(root)) :]
        names[:] = sorted(name for name in names if not f"{here}/{name}/".startswith(_IGNORED))
        for name in names + sorted(files):
            path = f"{here}/{name}"
            status = os.lstat(f"{directory}/{name}")
            is_packaged = stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) or stat.S_ISDIR(status.st_mode)
            if is_packaged and not path.startswith(_IGNORED):
                yield Owned(path, status.st_mode, status.st_uid, status.st_gid)
        names[:] = [name for name in names if f"{here}/{name}" not in _EMPTIED]
