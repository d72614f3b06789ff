"""Checkouts of a package's repository at one commit, with nothing of the repository's own being run."""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgate.builds.release import version_of
from distgate.errors import ConfigurationError, InfrastructureError, PackageError
from distgate.files import remove_tree, walk
from distgate.process import ProcessFailed, ProcessTimedOut, run

_REV = re.compile(r"[0-9a-f]{40}")
_URL = re.compile(r"(https?|file)://\S+")
#: git's texts for a commit that the server does not have (any more).
_NO_SUCH_COMMIT = re.compile(
    r"not our ref|couldn't find remote ref|not a valid object|unable to read tree|did not match"
)
_SIZE_INTERVAL = 0.2

#: Neither the user's settings nor anything that could run a program or ask a question.
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
    _check(url, rev)
    if into.exists() and any(into.iterdir()):
        raise ConfigurationError(f"{into} is not empty", hint="give a fresh directory")
    into.mkdir(parents=True, exist_ok=True)
    try:
        with _reading(url, rev, into, timeout, size_limit):
            git(["init", "--quiet", "--template=", into], timeout)
            git(["-C", into, "fetch", "--quiet", "--no-tags", "--depth=1", url, rev], timeout)
            git(["-C", into, "checkout", "--quiet", "--detach", rev], timeout)
    except BaseException:
        remove_tree(into, ignore_errors=True)
        raise
    return into


def checkout_of_site(url: str, rev: str, into: Path) -> Path:
    """``checkout`` of a repository that the site configures: PackageError becomes ConfigurationError."""
    try:
        return checkout(url, rev, into)
    except PackageError as error:
        raise ConfigurationError(error.message, hint=error.hint, evidence=error.evidence) from error


@dataclass(frozen=True)
class CommitCount:
    """How many commits led to one: ``commits`` counts merged branches too (``git rev-list --count``).

    ``releases`` is the number that rpmautospec gives to the commit's release: of the branch's own commits, those
    since the spec file's version was changed, that one included; 0 when they were not counted.
    """

    commits: int
    releases: int = 0


def commit_count(
    url: str,
    rev: str,
    *,
    spec: str = "",
    timeout: float = 300.0,
    size_limit: int = 512 << 20,
    scratch: Path | None = None,
) -> CommitCount:
    """Count what led to the commit ``rev`` of the repository at ``url``, and the releases of the spec file ``spec``.

    From a server that serves parts, commits alone are fetched, unless there is a ``spec``. Nothing is left below
    ``scratch`` (the temporary directory). Commit messages do not change the count as they do for rpmautospec
    (``[bump release: 2]``). Raises what ``checkout`` raises.
    """
    _check(url, rev)
    with tempfile.TemporaryDirectory(prefix="distgate-history-", dir=scratch) as private:
        repository = Path(private) / "history.git"
        repository.mkdir()
        object_filter = f"--filter={'blob:limit=512k' if spec else 'tree:0'}"
        with _reading(url, rev, repository, timeout, size_limit):
            git(["init", "--quiet", "--bare", "--template=", repository], timeout)
            git(["-C", repository, "fetch", "--quiet", "--no-tags", object_filter, url, rev], timeout)
            commits = int(git(["-C", repository, "rev-list", "--count", rev], timeout))
            return CommitCount(commits, _releases(repository, rev, spec, timeout) if spec else 0)


def _releases(repository: Path, rev: str, spec: str, timeout: float) -> int:
    branch_commits: list[str | Path] = ["-C", repository, "rev-list", "--first-parent"]
    began, version = rev, None
    for commit in git([*branch_commits, rev, "--", spec], timeout).split():
        older = version_of(
            git(["-C", repository, "cat-file", "blob", f"{commit}:{spec}"], timeout, absent_is_empty=True)
        )
        if older != (version := version or older):
            break
        began = commit
    return int(git([*branch_commits, "--count", f"{began}..{rev}"], timeout)) + 1


def _check(url: str, rev: str) -> None:
    if not _REV.fullmatch(rev):
        raise ConfigurationError(f"{rev!r} is not a commit: 40 hexadecimal digits are needed")
    if not _URL.fullmatch(url):
        raise ConfigurationError(f"{url!r} is not the address of a repository", hint="http, https or file")


@contextmanager
def _reading(url: str, rev: str, into: Path, timeout: float, size_limit: int) -> Iterator[None]:
    """Turns git's failures in the block into ours, and stops what makes ``into`` too large."""
    with _SizeGuard(into, size_limit) as guard:
        try:
            yield
        except ProcessTimedOut as error:
            message = f"{url} did not send {rev} within {timeout:g} s"
            raise InfrastructureError(message, evidence=error.evidence) from error
        except ProcessFailed as error:
            guard.check()
            if _NO_SUCH_COMMIT.search(error.evidence):
                message = f"{url} has no commit {rev}"
                raise PackageError(message, hint="was the branch rewritten?", evidence=error.evidence) from error
            message = f"cannot fetch {rev} from {url}"
            raise InfrastructureError(message, hint="is dist-git up?", evidence=error.evidence) from error
        guard.check()


def git(arguments: list[str | Path], timeout: float, *, absent_is_empty: bool = False) -> str:
    """The output of git, with no user's or repository's settings that could make it run or ask something.

    Raises as distgate.process.run does; with ``absent_is_empty`` an error that git calls fatal gives an empty output.
    """
    settings = [argument for setting in _SAFE for argument in ("-c", setting)]
    allowed = (0, 128) if absent_is_empty else (0,)
    ended = run(["git", *settings, *arguments], timeout=timeout, env=_ENVIRONMENT, split_errors=True, allowed=allowed)
    return "" if ended.returncode else ended.output


class _SizeGuard:
    """Watches how large a directory grows; its removal stops the process that fills it."""

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
        while not self._done.wait(_SIZE_INTERVAL):
            if _size(self._directory) > self._limit:
                self._exceeded = True
                remove_tree(self._directory, ignore_errors=True)


def _size(directory: Path) -> int:
    return sum(entry.status.st_size for entry in walk(directory) if not entry.is_directory)
