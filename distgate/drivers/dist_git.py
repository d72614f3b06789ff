"""Checkouts of a package's repository at one commit, with nothing of the repository's own being run."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

from distgate.errors import ConfigurationError, InfrastructureError, PackageError
from distgate.process import ProcessFailed, ProcessTimedOut, run

_REV = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"(https?|file)://\S+")
#: git's own words for a commit that the server does not have (any more).
_NO_SUCH_COMMIT = re.compile(
    r"not our ref|couldn't find remote ref|not a valid object|unable to read tree|did not match"
)
_LOOK_SECONDS = 0.2

#: The person's settings stay out, and so does everything that could run a program or ask a question.
_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "http:https:file",
    "GIT_LFS_SKIP_SMUDGE": "1",
}
_SAFE = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=true", "transfer.fsckObjects=true")


def checkout(url: str, rev: str, into: Path, *, timeout: float = 300.0, size_limit: int = 512 << 20) -> Path:
    """Fetch the commit ``rev`` from the repository at ``url`` into the directory ``into`` and return it.

    ``into`` must not exist or be empty; after an error it is gone. The checkout has no history, no submodules
    and a detached HEAD. ``timeout`` is in seconds, ``size_limit`` in bytes (of the whole directory).

    Raises ConfigurationError for a ``rev`` that is not 40 hexadecimal digits and for other URLs than http, https
    and file, PackageError when the repository has no such commit or is larger than allowed, InfrastructureError
    when it cannot be read in time.
    """
    if not _REV.fullmatch(rev):
        raise ConfigurationError(f"{rev!r} is not a commit: 40 hexadecimal digits are needed")
    if not _URL.fullmatch(url):
        raise ConfigurationError(f"{url!r} is not the address of a repository", hint="http, https or file")
    if into.exists() and any(into.iterdir()):
        raise ConfigurationError(f"{into} is not empty", hint="give a fresh directory")
    into.mkdir(parents=True, exist_ok=True)
    try:
        with _SizeGuard(into, size_limit) as guard:
            _fetch(url, rev, into, timeout, guard)
    except BaseException:
        shutil.rmtree(into, ignore_errors=True)
        raise
    return into


def _fetch(url: str, rev: str, into: Path, timeout: float, guard: _SizeGuard) -> None:
    try:
        _git(["init", "--quiet", "--template=", into], timeout)
        _git(["-C", into, "fetch", "--quiet", "--no-tags", "--depth=1", url, rev], timeout)
        _git(["-C", into, "checkout", "--quiet", "--detach", rev], timeout)
    except ProcessTimedOut as late:
        raise InfrastructureError(f"{url} did not give {rev} within {timeout:g} s", evidence=late.evidence) from late
    except ProcessFailed as failed:
        guard.check()
        if _NO_SUCH_COMMIT.search(failed.evidence):
            message = f"{url} has no commit {rev}"
            raise PackageError(message, hint="was the branch rewritten?", evidence=failed.evidence) from failed
        message = f"cannot fetch {rev} from {url}"
        raise InfrastructureError(message, hint="is dist-git up?", evidence=failed.evidence) from failed
    guard.check()


def _git(words: list[str | Path], timeout: float) -> None:
    settings = [word for setting in _SAFE for word in ("-c", setting)]
    run(["git", *settings, *words], timeout=timeout, env=_ENVIRONMENT)


class _SizeGuard:
    """Watches how large a directory grows; the one who fills it is stopped by taking the directory away."""

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._done = threading.Event()
        self._exceeded = False
        self._thread = threading.Thread(target=self._watch, name="size-guard", daemon=True)

    def check(self) -> None:
        """Raise PackageError when the directory has become larger than allowed."""
        if self._exceeded or _size(self._directory) > self._limit:
            raise PackageError(f"the repository is larger than {self._limit >> 20} MiB")

    def __enter__(self) -> _SizeGuard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            if _size(self._directory) > self._limit:
                self._exceeded = True
                shutil.rmtree(self._directory, ignore_errors=True)


def _size(directory: Path) -> int:
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:
                continue  # git's temporary files come and go
    return total
