"""The builder's source checkout: a commit of dist-git, and the files that its ``sources`` names."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx
import koji

from lab.dist_git.lookaside import relative_path
from lab.dist_git.repository import PLAIN_GIT
from lab.koji.task_process import run_logged
from lab.koji.tasks import TaskFault

_URL = re.compile(r"^git\+(?P<url>https?://[^/@]+/(?P<ns>[^/#?]+)/(?P<name>[^/#?]+?)(\.git)?/?)\??#(?P<rev>[^#]+)$")
_SOURCE = re.compile(r"^(?P<type>[A-Z0-9]+) \((?P<file>[^)/ ]+)\) = (?P<hash>[0-9a-f]+)$")
_OLD_SOURCE = re.compile(r"^(?P<hash>[0-9a-f]{32})  (?P<file>[^/ ]+)$")
_GIT_SECONDS = 600.0
_FETCH_SECONDS = 300.0


@dataclass(frozen=True)
class Scm:
    """A parsed ``git+URL#REV`` of the one dist-git that this builder may build from."""

    url: str
    namespace: str
    package: str
    rev: str

    @classmethod
    def parse(cls, source: str, dist_git: str) -> Scm:
        """Read ``source``. Raises TaskFault for another grammar and for another host than ``dist_git``."""
        parts = _URL.match(source)
        if not parts:
            raise TaskFault(koji.GenericError.faultCode, f"GenericError: Invalid SCM URL: {source}")
        if not parts["url"].startswith(f"{dist_git}/"):
            where = parts["url"].split("//", 1)[1].replace("/", ":/", 1)
            raise TaskFault(koji.BuildError.faultCode, f"BuildError: {where} is not in the list of allowed SCMs")
        return cls(parts["url"], parts["ns"], parts["name"], parts["rev"])


def check_out(scm: Scm, into: Path, log: Path, stop: threading.Event) -> None:
    """Clone the commit into ``into`` (which must not exist). Raises TaskFault as koji words it, TaskStopped."""
    for command in (["clone", "-n", scm.url, str(into)], ["-C", str(into), "reset", "--hard", scm.rev]):
        with log.open("a") as stream:
            stream.write(f"$ git {' '.join(command)}\n")
        # A checkout must not run anything of the repository's, nor follow a link out of it.
        argv = ["git", "-c", "core.hooksPath=/dev/null", *command]
        if run_logged(argv, log, stop, _GIT_SECONDS, **PLAIN_GIT) != 0:
            raise _scm_failure(f"git {' '.join(command)}", log)


def fetch_sources(scm: Scm, checkout: Path, lookaside: str, log: Path) -> None:
    """Download what ``sources`` names into the checkout, each file compared with its checksum.

    Raises TaskFault as koji words it; the log says which file and why.
    """
    listed = checkout / "sources"
    if not listed.exists() or listed.is_symlink():
        return
    with log.open("a") as stream, httpx.Client(timeout=_FETCH_SECONDS) as client:
        for line in filter(str.strip, listed.read_text().splitlines()):
            problem = _fetch(client, scm, line.strip(), checkout, lookaside)
            stream.write(f"{problem or 'fetched'}: {line}\n")
            if problem:
                raise _scm_failure("fedpkg sources", log)


def _fetch(client: httpx.Client, scm: Scm, line: str, checkout: Path, lookaside: str) -> str:
    """Fetch the file of one line; the problem as a sentence, or nothing."""
    parts = _SOURCE.match(line) or _OLD_SOURCE.match(line)
    if not parts or parts["file"] in (".", ".."):
        return "this is no line of a sources file"
    kind = parts.groupdict().get("type", "MD5").lower()
    if kind not in ("sha512", "sha256", "md5"):
        return f"unknown hash type {kind}"
    target = checkout / parts["file"]
    if target.is_symlink() or target.is_dir():
        return "the repository has something else under this name"
    url = f"{lookaside}/{relative_path(scm.namespace, scm.package, parts['file'], kind, parts['hash'])}"
    return _download(client, url, target, kind, parts["hash"])


def _download(client: httpx.Client, url: str, target: Path, kind: str, expected: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    try:
        with client.stream("GET", url) as answer, target.open("wb") as stream:
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                digest.update(chunk)
                stream.write(chunk)
    except httpx.HTTPError as error:
        return f"could not download ({error})"
    if digest.hexdigest() != expected:
        return f"invalid checksum: {kind} of the download is {digest.hexdigest()}"
    return ""


def _scm_failure(command: str, log: Path) -> TaskFault:
    text = f'BuildError: Error running GIT+HTTP command "{command}", see {log.name} for details'
    return TaskFault(koji.BuildError.faultCode, text)


def find_spec(checkout: Path) -> PurePosixPath:
    """The one spec file's name. Raises TaskFault when there is none, or more than one."""
    specs = sorted(path.name for path in checkout.glob("*.spec") if path.is_file() and not path.is_symlink())
    if len(specs) != 1:
        text = f"Multiple spec files found: {specs}" if specs else "No spec file found"
        raise TaskFault(koji.BuildError.faultCode, f"BuildError: {text}")
    return PurePosixPath(specs[0])
