"""The lab's integration suite of a whole host, in a repository of its dist-git."""

from __future__ import annotations

from pathlib import Path

from lab.dist_git.repository import create_repository, git, push, repository_path

NAME = "lab-host-tests"
NAMESPACE = "tests"
PLAYBOOKS = ("host.yml",)
SUITES = Path(__file__).parent / "suites"


def seed(root: Path) -> None:
    """Bring the suite's repository below ``root`` up to date with what lies beside this file."""
    repository = create_repository(root, NAME, NAMESPACE)
    files = {name: (SUITES / name).read_text() for name in PLAYBOOKS}
    if any(_content(repository, name) != text for name, text in files.items()):
        push(repository, "rawhide", files, "The suite as the lab has it")


def rev(root: Path) -> str:
    """The commit of the suite below ``root``."""
    return git("-C", repository_path(root, NAME, NAMESPACE), "rev-parse", "rawhide")


def _content(repository: Path, name: str) -> str | None:
    if not git("-C", repository, "for-each-ref", "refs/heads/rawhide"):
        return None
    names = git("-C", repository, "ls-tree", "--name-only", "rawhide").split()
    return f"{git('-C', repository, 'show', f'rawhide:{name}')}\n" if name in names else None
