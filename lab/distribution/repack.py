"""Repacks a configured Debian root into RPMs: one spec, one subpackage per deb, one rpmbuild."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from distgate.errors import InfrastructureError
from distgate.process import run
from lab.distribution.dpkg import DebPackage, rpm_version
from lab.distribution.file_owners import LEFTOVERS, SETUP, Owned, after_usr_merge, assign_files
from lab.distribution.kernel import OSTREE_PACKAGE, Kernel
from lab.distribution.kernel import PACKAGE as KERNEL

NAMES = Path(__file__).with_name("fedora_names.toml")

#: Debian's own package management; bash is /bin/sh here.
DROPPED = ("apt", "dash", "debian-archive-keyring", "usrmerge", "libapt-pkg6.0")

_PERL = re.compile(r"^/usr/(?:share|lib/x86_64-linux-gnu)/perl(?:-base|5?(?:/5\.[0-9.]+)?)/(.+)\.pm$")
_PKGCONFIG = re.compile(r"^/usr/(?:share|lib|lib64|lib/x86_64-linux-gnu)/pkgconfig/([^/]+)\.pc$")

# Nothing is stripped, compressed or compiled again: the files are finished. Of rpm's generators only the one for
# sonames runs; it is fast, and the others would start a process per file.
_PREAMBLE = """Name: lab-debian
Version: 12
Release: 1
Summary: Debian repacked for the lab
License: Various
%global __os_install_post %{{nil}}
%global debug_package %{{nil}}
%global _build_id_links none
%global _binary_payload w1.zstdio
%global _unpackaged_files_terminate_build 0
%global _missing_build_ids_terminate_build 0
%global _invalid_encoding_terminates_build 0
%global __provides_exclude_from ^(/etc|/usr/(share|include|s?bin|lib/(python|modules|gcc|x86_64-linux-gnu/perl))|/var)
%description
One subpackage per Debian package.
%install
rm -rf %{{buildroot}}
cp -al {root} %{{buildroot}}
"""

# Fedora's packages rely on glibc to run ldconfig for them. Debian's loader does not look into lib64 by itself.
_LDCONFIG = """%transfiletriggerin -n {name} -P 2000000 -- /usr/lib /usr/lib64
/usr/sbin/ldconfig
%transfiletriggerpostun -n {name} -P 2000000 -- /usr/lib /usr/lib64
/usr/sbin/ldconfig
"""
# Both are mounted while packages are installed into an image; like Fedora's filesystem package, make them but do not
# unpack them.
_GHOSTS = ("/proc", "/sys")
_MOUNT_POINTS = """%pretrans -n {name} -p <lua>
posix.mkdir("/proc")
posix.mkdir("/sys")
"""
_KERNEL_SUMMARIES = {
    KERNEL: "The Linux kernel for virtual machines",
    OSTREE_PACKAGE: "An initramfs that boots deployments of OSTree",
}
_SCRIPTLETS = {"libc-bin": _LDCONFIG, LEFTOVERS: _MOUNT_POINTS}
_ADDED = {
    "/etc/ld.so.conf.d/lib64.conf": "/usr/lib64\n",
    "/etc/rpm/macros.lab": "# Debian's rpm keeps its database in a home directory.\n%_dbpath /var/lib/rpm\n",
    "/etc/machine-id": "",
}


@dataclass(frozen=True)
class Repacker:
    """Turns ``root`` into RPMs. ``kernel`` lies in the root already and becomes RPMs of its own."""

    root: Path
    packages: Mapping[str, DebPackage]
    kernel: Kernel

    def build(self, topdir: Path, log: Path) -> Path:
        """Write the RPMs and return their directory; takes half a minute, and raises InfrastructureError."""
        self._add_files()
        files = assign_files(self.root, self.packages, DROPPED, self.kernel.files)
        lists = topdir / "files"
        lists.mkdir(parents=True)
        for name, owned in files.items():
            (lists / name).write_text("\n".join(self._entry(file) for file in owned) + "\n")
        spec = topdir / "lab-debian.spec"
        spec.write_text(self.spec(files, lists))
        run(
            ["rpmbuild", "-bb", "--quiet", "--define", f"_topdir {topdir}", spec],
            timeout=1800,
            log_to=log,
            env={"HOME": str(topdir)},
            error=InfrastructureError,
        )
        return topdir / "RPMS"

    def spec(self, files: Mapping[str, Iterable[Owned]], lists: Path) -> str:
        """The spec's text for packages with these files, whose %files lists lie in ``lists``."""
        names = sorted({*files, *self.packages} - set(DROPPED))  # some packages hold nothing but documentation
        blocks = [self._block(name, list(files.get(name, ())), lists / name) for name in names]
        return _PREAMBLE.format(root=self.root) + "\n".join(blocks)

    def _add_files(self) -> None:
        for path, text in _ADDED.items():
            target = self.root / path.lstrip("/")
            target.parent.mkdir(exist_ok=True)
            target.write_text(text)

    @cached_property
    def aliases(self) -> dict[str, list[str]]:
        return dict(tomllib.loads(NAMES.read_text())["provides"])

    @cached_property
    def virtual(self) -> dict[str, str]:
        """Names that a package stands for without bearing them."""
        return {alias: name for name, package in self.packages.items() for alias in package.provides}

    @cached_property
    def users(self) -> tuple[dict[int, str], dict[int, str]]:
        return _numbers(self.root / "etc/passwd"), _numbers(self.root / "etc/group")

    def _block(self, name: str, owned: list[Owned], listing: Path) -> str:
        version, release, summary = self._header(name)
        lines = [
            f"%package -n {name}",
            f"Version: {version}",
            f"Release: {release}",
            f"Summary: {summary[:70].replace('%', '%%')}",
            "AutoReq: no",
            *(f"Requires: {need}" for need in self._requires(name)),
            *(f"Provides: {capability}" for capability in self._provides(name, version, owned)),
            f"%description -n {name}",
            "Repacked from Debian.",
            _SCRIPTLETS.get(name, "").format(name=name),
            f"%files -n {name}" + (f" -f {listing}" if owned else ""),
        ]
        return "\n".join(line for line in lines if line) + "\n"

    def _header(self, name: str) -> tuple[str, str, str]:
        if name in (KERNEL, OSTREE_PACKAGE):
            return self.kernel.version, self.kernel.rpm_release, _KERNEL_SUMMARIES[name]
        package = self.packages.get(name)
        if package is None:
            return "12", "1", "Files of the lab's base system"
        return *rpm_version(package.version), package.summary

    def _requires(self, name: str) -> list[str]:
        if name == SETUP:
            return []
        if name == LEFTOVERS:
            return [SETUP]
        package = self.packages.get(name)
        if name == OSTREE_PACKAGE:
            return [LEFTOVERS, KERNEL]
        chosen = [self._installed(alternatives) for alternatives in package.depends] if package else []
        return list(dict.fromkeys([LEFTOVERS, *(need for need in chosen if need and need != name)]))

    def _installed(self, alternatives: Iterable[str]) -> str | None:
        """The alternative that the configured root chose; None when it is not part of the lab."""
        for name in alternatives:
            real = name if name in self.packages else self.virtual.get(name)
            if real:
                return None if real in DROPPED else real
        return None

    def _provides(self, name: str, version: str, owned: list[Owned]) -> list[str]:
        package = self.packages.get(name)
        capabilities = [*self.aliases.get(name, []), *(package.provides if package else ())]
        if name == KERNEL:
            capabilities += ["kernel", "kernel-modules"]
        if name == LEFTOVERS:
            capabilities += ["filesystem"]
        plain = [
            capability
            if " = " in capability or "(" in capability or "/" in capability
            else f"{capability} = {version}"
            for capability in capabilities
        ]
        return list(dict.fromkeys([*plain, *self._paths(package), *(m for f in owned for m in _modules(f.path))]))

    def _paths(self, package: DebPackage | None) -> list[str]:
        """The paths below /bin and /sbin that moved below /usr but are still asked for by their old names."""
        files = package.files if package else ()
        return [
            path
            for path in files
            if path != after_usr_merge(self.root, path) and path.startswith(("/bin/", "/sbin/"))
        ]

    def _entry(self, file: Owned) -> str:
        quoted = '"' + file.path.replace("%", "%%").replace('"', '\\"') + '"'
        if file.is_link:
            return quoted
        users, groups = self.users
        attributes = f"%attr({file.mode & 0o7777:o}, {users.get(file.uid, 'root')}, {groups.get(file.gid, 'root')})"
        if file.is_directory:
            return f"{'%ghost ' if file.path in _GHOSTS else ''}%dir {attributes} {quoted}"
        return f"{'%config(noreplace) ' if file.path.startswith('/etc/') else ''}{attributes} {quoted}"


def _numbers(database: Path) -> dict[int, str]:
    rows = (line.split(":") for line in database.read_text().splitlines() if line)
    return {int(row[2]): row[0] for row in rows}


def _modules(path: str) -> list[str]:
    """perl(Foo::Bar) and pkgconfig(foo), which Fedora's specs name instead of packages."""
    perl, pkgconfig = _PERL.match(path), _PKGCONFIG.match(path)
    if perl:
        return [f"perl({perl[1].replace(os.sep, '::')})"]
    return [f"pkgconfig({pkgconfig[1]})"] if pkgconfig else []
