"""The lab's distribution: Debian 12 as an RPM repository with groups, for guests and for build roots."""

from __future__ import annotations

import inspect
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from distgate.errors import InfrastructureError
from distgate.process import run
from distgate.steps import Progress
from lab.distribution import debian_root, dpkg, file_owners, initramfs, kernel, repack
from lab.distribution.cache import ensure_entry, identity_of

GROUPS = Path(__file__).with_name("comps.toml")

#: What the repository holds, with everything these depend on.
PACKAGES = (
    # the guest
    "systemd", "systemd-sysv", "udev", "dbus", "openssh-server", "openssh-client", "python3", "dnf", "rpm",
    "iproute2", "iputils-ping", "kmod", "netbase", "procps", "rsync", "less", "hostname", "e2fsprogs",
    "ca-certificates",
    # OSTree
    "ostree", "ostree-boot",
    # build roots
    "gcc", "make", "gettext", "libc6-dev", "zlib1g-dev", "patch", "tar", "gzip", "bzip2", "xz-utils", "zstd", "unzip",
    "diffutils", "findutils", "sed", "gawk", "perl", "binutils", "file", "cpio", "pkgconf", "autoconf", "automake",
    "libtool", "m4", "createrepo-c",
)  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """A directory with repodata, and the identity of the recipe that made it."""

    path: Path
    identity: str

    @property
    def url(self) -> str:
        return f"file://{self.path}"


def ensure_repository(cache: Path, progress: Progress) -> Repository:
    """The lab's package repository, made in ``cache`` on the first call (two to four minutes, network, root).

    Later calls return at once until the recipe changes. Raises ConfigurationError or InfrastructureError.
    """
    cache = cache.resolve()
    identity = recipe_identity()
    return Repository(ensure_entry(cache, "repository", identity, lambda into: _make(into, progress)), identity)


def recipe_identity() -> str:
    """Changes whenever the lists or the code that make the repository change."""
    code = (inspect.getsource(module) for module in (debian_root, dpkg, file_owners, initramfs, kernel, repack))
    return identity_of(" ".join(PACKAGES), *code, repack.NAMES.read_text(), GROUPS.read_text())


def comps_xml(groups: Path = GROUPS) -> str:
    """The groups of ``groups`` (TOML) as createrepo_c and dnf read them."""
    comps = ElementTree.Element("comps")
    for name, group in tomllib.loads(groups.read_text()).items():
        element = ElementTree.SubElement(comps, "group")
        facts = {"id": name, "name": group["name"], "description": group["description"]}
        for tag, text in (facts | {"default": "true", "uservisible": "false"}).items():
            ElementTree.SubElement(element, tag).text = text
        listing = ElementTree.SubElement(element, "packagelist")
        for package in group["packages"]:
            ElementTree.SubElement(listing, "packagereq", type="mandatory").text = package
    return ElementTree.tostring(comps, encoding="unicode", xml_declaration=True)


@contextmanager
def step(progress: Progress, what: str) -> Iterator[None]:
    """Tell what is being made, and afterwards how many seconds it took."""
    progress(f"making {what}")
    start = time.monotonic()
    yield
    progress(f"made {what} in {time.monotonic() - start:.1f} s")


def _make(into: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory(prefix=".repack-", dir=into) as name:
        scratch = Path(name)
        root = scratch / "root"
        with step(progress, "a Debian root with everything the lab needs"):
            debian_root.make_root(root, PACKAGES, into / "mmdebstrap.log")
        with step(progress, "a kernel with an initramfs"):
            placed = kernel.add_kernel(root, scratch)
        with step(progress, "RPMs of its packages"):
            repacker = repack.Repacker(root, dpkg.installed(root), placed)
            rpms = repacker.build(scratch / "rpmbuild", into / "rpmbuild.log")
        for rpm in sorted(rpms.rglob("*.rpm")):
            shutil.move(rpm, into / rpm.name)
        (into / "comps.xml").write_text(comps_xml())
        with step(progress, "the repository's metadata"):
            run(["createrepo_c", "-q", "-g", "comps.xml", into], timeout=300, error=InfrastructureError)
