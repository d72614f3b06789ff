"""The demo package: a real upstream release of dos2unix with a spec and tests of ours, and ways to break it."""

from __future__ import annotations

import datetime
import hashlib
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml

from distgate.errors import ConfigurationError, DistgateError, InfrastructureError
from distgate.process import on_path, run
from distgate.steps import Progress
from lab.dist_git.lookaside import relative_path, upload
from lab.dist_git.repository import Author, create_branch, create_repository, git, push

NAME = "dos2unix"
VERSION = "7.4.3"
TARBALL = f"{NAME}-{VERSION}.tar.gz"
#: Of the release tarball, which Debian's .orig tarball is byte for byte.
SHA512 = (
    "1c6d81348de8aca451174794141d0802685487cf6847fa91f7de745d89bcf2af"
    "864fc2ec549b9af72031891d4efcb9731fe823ce05da36d1f9e9890ff2cb60fb"
)
#: The last one is what the lab makes its Atomic Host of.
ATOMIC_BRANCH = "f42"
BRANCHES = ("rawhide", "f41", ATOMIC_BRANCH)
PACKAGE_DIR = Path(__file__).parent / "packages" / NAME

_LOOKASIDE = "https://src.fedoraproject.org/repo/pkgs"
#: Downloads one file as apt would: by the same proxies and methods.
_APT_HELPER = "/usr/lib/apt/apt-helper"
_DOWNLOAD_SECONDS = 300.0


@dataclass(frozen=True)
class Break:
    """A change that fails in just one stage of a pipeline: in ``file``, each first text becomes the second.

    ``fails`` says by pipeline which stage it is and its status, as ``package FAILURE``; the others let it pass.
    """

    stage: str
    summary: str
    file: str
    changes: tuple[tuple[str, str], ...]
    fails: Mapping[str, str] = field(default_factory=dict)

    def apply(self, files: Mapping[str, str]) -> dict[str, str]:
        """The package's files with this change made. Raises ConfigurationError when a text is not there once."""
        text = files[self.file]
        for find, replace in self.changes:
            if text.count(find) != 1:
                raise ConfigurationError(f"the break of stage {self.stage} does not match {self.file} exactly once")
            text = text.replace(find, replace)
        return {**files, self.file: text}


def breaks() -> dict[str, Break]:
    """The known breaks by stage, read from the package's ``breaks.yml``."""
    table = yaml.safe_load((PACKAGE_DIR / "breaks.yml").read_text())
    return {stage: _break(stage, **entry) for stage, entry in table.items()}


def _break(stage: str, changes: list[dict[str, str]], **fields: Any) -> Break:
    return Break(stage=stage, changes=tuple((change["find"], change["replace"]) for change in changes), **fields)


def package_files() -> dict[str, str]:
    """What the package's repository holds, but for ``sources``: names and contents."""
    paths = [path for path in sorted(PACKAGE_DIR.rglob("*")) if path.is_file() and path.name != "breaks.yml"]
    return {path.relative_to(PACKAGE_DIR).as_posix(): path.read_text() for path in paths}


def seed(root: Path, cache: Path, progress: Progress) -> Path:
    """Make the package's repository with branches rawhide and f41 below ``root``, and fill the lookaside.

    Nothing is published. An existing repository is left as it is. Returns the bare repository.
    """
    tarball = ensure_tarball(cache, progress)
    sources = upload(root / "lookaside", NAME, tarball)
    repository = create_repository(root, NAME)
    if git("-C", repository, "for-each-ref", "refs/heads"):
        return repository
    files = package_files()
    tests = {name: text for name, text in files.items() if name.startswith("tests/")}
    spec = {name: text for name, text in files.items() if name not in tests}
    push(repository, BRANCHES[0], {**spec, "sources": sources, ".gitignore": f"/{NAME}-*.tar.gz\n"}, "Initial import")
    push(repository, BRANCHES[0], tests, "Add tests of the installed converters")
    for branch in BRANCHES[1:]:
        create_branch(repository, branch, BRANCHES[0])
    progress(f"dist-git: seeded rpms/{NAME} with {', '.join(BRANCHES)}")
    return repository


def push_change(repository: Path, branch: str = "f41", stage: str = "", author: Author | None = None) -> str:
    """Push the next release of the package to ``branch`` and return the commit's 40 hex digits.

    ``stage``, one of ``breaks()``, makes it a commit that fails in just that stage; without it the package is whole
    again, whatever was pushed before.
    """
    author = author or Author()
    by_stage = breaks()
    if stage and stage not in by_stage:
        raise ConfigurationError(f"no break for stage {stage!r}", hint=f"there are {', '.join(by_stage)}")
    files = package_files()
    summary = by_stage[stage].summary if stage else "Rebuild"
    if stage:
        files = by_stage[stage].apply(files)
    spec = f"{NAME}.spec"
    release = int(git("-C", repository, "rev-list", "--count", branch)) + 1
    files[spec] = _with_release(files[spec], release, summary, author)
    return push(repository, branch, files, summary, author=author)


def ensure_tarball(cache: Path, progress: Progress, lookaside: str = _LOOKASIDE) -> Path:
    """The upstream release, below ``cache``; fetched once, from a Debian mirror that apt knows or from ``lookaside``.

    Raises InfrastructureError when no source has it, or when what came has another checksum.
    """
    target = cache / "sources" / TARBALL
    if target.exists() and _sha512(target) == SHA512:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    progress(f"fetching the upstream release {TARBALL}")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        fetched = _fetch(Path(scratch), lookaside)
        if _sha512(fetched) != SHA512:
            raise InfrastructureError(f"the fetched {TARBALL} has another checksum than the release")
        fetched.rename(target)
    return target


def _fetch(scratch: Path, lookaside: str) -> Path:
    if on_path("apt-get"):
        for mirror in _debian_mirrors():
            with suppress(DistgateError):
                return _from_debian(mirror, scratch)
    return _from_lookaside(scratch, lookaside)


def _debian_mirrors() -> list[str]:
    """The mirrors that apt is set up with on this machine."""
    listing = run(["apt-get", "update", "--print-uris"], timeout=60).output  # prints, and changes nothing
    return list(dict.fromkeys(re.findall(r"(?m)^'([^']+)/dists/", listing)))


def _from_debian(mirror: str, scratch: Path) -> Path:
    path = scratch / TARBALL
    url = f"{mirror}/pool/main/{NAME[0]}/{NAME}/{NAME}_{VERSION}.orig.tar.gz"
    run([_APT_HELPER, "download-file", url, path, f"SHA512:{SHA512}"], timeout=_DOWNLOAD_SECONDS)
    return path


def _from_lookaside(scratch: Path, lookaside: str) -> Path:
    path = scratch / TARBALL
    url = f"{lookaside}/{relative_path('rpms', NAME, TARBALL, 'sha512', SHA512)}"
    try:
        with httpx.stream("GET", url, timeout=_DOWNLOAD_SECONDS, follow_redirects=True) as answer:
            answer.raise_for_status()
            with path.open("wb") as stream:
                for chunk in answer.iter_bytes():
                    stream.write(chunk)
    except httpx.HTTPError as error:
        raise InfrastructureError(
            f"cannot fetch {url}: {error}", hint="the demo needs the network once, for the upstream release"
        ) from error
    return path


def _with_release(spec: str, release: int, summary: str, author: Author) -> str:
    day = datetime.datetime.now(datetime.UTC).strftime("%a %b %d %Y")
    entry = f"* {day} {author.name} <{author.email}> - {VERSION}-{release}\n- {summary}\n"
    spec = re.sub(r"(?m)^(Release:\s+)\d+", rf"\g<1>{release}", spec, count=1)
    return spec.replace("%changelog\n", f"%changelog\n{entry}\n", 1)


def _sha512(path: Path) -> str:
    return hashlib.sha512(path.read_bytes()).hexdigest()
