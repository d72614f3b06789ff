"""Bare dist-git repositories: made, seeded and pushed to with real git."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distgate.errors import ConfigurationError
from distgate.process import run

#: Nothing of the person's own git settings (signing, templates, hooks) may change what the lab does.
PLAIN_GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0"}
_SECONDS = 60.0

#: What a push changes: file names and their new content; None removes the file.
Files = Mapping[str, str | bytes | None]


@dataclass(frozen=True)
class Author:
    """Who commits and pushes; ``username`` is the account that the receive message names."""

    username: str = "packager"
    name: str = "Lab Packager"
    email: str = "packager@lab.test"


def git(*arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run git without the person's settings and return what it printed, stripped at the end."""
    return run(["git", *arguments], timeout=_SECONDS, cwd=cwd, env={**PLAIN_GIT, **(env or {})}).output.rstrip()


def repository_path(root: Path, package: str, namespace: str = "rpms") -> Path:
    """Where the bare repository of a package lies below the dist-git root."""
    return root / "repositories" / namespace / f"{package}.git"


def create_repository(root: Path, package: str, namespace: str = "rpms") -> Path:
    """Make an empty bare repository (an existing one is kept) and return its path."""
    path = repository_path(root, package, namespace)
    if not (path / "HEAD").exists():
        path.mkdir(parents=True, exist_ok=True)
        git("init", "--quiet", "--bare", "--initial-branch=rawhide", "--template=", path)
        # Clients ask for one commit by its hash, as src.fedoraproject.org allows them to.
        git("-C", path, "config", "uploadpack.allowReachableSHA1InWant", "true")
    return path


def push(
    repository: Path,
    branch: str,
    files: Files,
    summary: str,
    *,
    author: Author = Author(),
    start: str = "",
) -> str:
    """Commit ``files`` on ``branch`` in a working clone, push it for real and return the commit's 40 hex digits.

    A branch that does not exist yet starts from ``start`` (a branch or commit; empty: from nothing). Without a
    change of content the commit is empty, so that every call gives a new commit. The receiving repository's
    hook publishes, when one is installed.
    """
    with tempfile.TemporaryDirectory(prefix="distgate-push-") as scratch:
        clone = Path(scratch) / repository.stem
        git("clone", "--quiet", "--no-checkout", repository, clone)
        _enter_branch(clone, branch, start)
        _write(clone, files)
        git("add", "--all", cwd=clone)
        git("commit", "--quiet", "--allow-empty", "-m", summary, cwd=clone, env=_identity(author))
        # GL_USER is where a dist-git server names the pusher to its hooks.
        git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", cwd=clone, env={"GL_USER": author.username})
        return git("rev-parse", "HEAD", cwd=clone)


def create_branch(repository: Path, branch: str, start: str) -> None:
    """Let ``branch`` begin at ``start`` without a push: no hook runs, nothing is published."""
    git("-C", repository, "branch", "--force", branch, start)


def install_hook(repository: Path, settings: Mapping[str, str]) -> None:
    """Let every later push to ``repository`` be announced by ``python -m lab.dist_git.post_receive``.

    ``settings`` are stored in the repository's own git configuration as ``distgate.<name>``: the hook reads them
    there, because git passes it no environment of ours.
    """
    for name, value in settings.items():
        git("-C", repository, "config", f"distgate.{name}", value)
    hook = repository / "hooks" / "post-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lab.dist_git.post_receive\n")
    hook.chmod(0o755)


def _enter_branch(clone: Path, branch: str, start: str) -> None:
    branches = git("branch", "--remotes", "--format=%(refname:lstrip=3)", cwd=clone).split()
    if branch in branches:
        git("checkout", "--quiet", "-B", branch, f"origin/{branch}", cwd=clone)
    elif start:
        git("checkout", "--quiet", "-b", branch, f"origin/{start}" if start in branches else start, cwd=clone)
    else:
        git("checkout", "--quiet", "--orphan", branch, cwd=clone)


def _write(clone: Path, files: Files) -> None:
    for name, content in files.items():
        path = clone / name
        if not path.resolve().is_relative_to(clone.resolve()) or ".git" in Path(name).parts:
            raise ConfigurationError(f"{name!r} is not a file of the repository")
        if content is None:
            path.unlink(missing_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _identity(author: Author) -> dict[str, str]:
    who = {"NAME": author.name, "EMAIL": author.email}
    return {f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in who.items()}
