"""A run by hand: what people name (a change, a commit, a message, a Koji build), and the one change that they mean.

Pure: the head of a branch and a Koji task's source come from a Lookup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distgate.changes.change import Change
from distgate.changes.replay import change_of_file
from distgate.errors import ConfigurationError
from distgate.pipelines import RAWHIDE, Pipeline
from distgate.settings import Settings

_SOURCE = re.compile(
    r"(?:git\+)?\w+://[^#?]*?/(?P<namespace>[\w.+-]+)/(?P<repo>[\w.+-]+?)(?:\.git)?(?:\?[^#]*)?#(?P<rev>\w+)"
)
_HINT = "name one of: repo (with rev, branch); message; koji_task; or give the change in full"


class RunRequest(BaseModel):
    """What names a change, where it is not given in full. Exactly one way is used; see ``change_of``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: str = Field("", description="A package, such as bash or rpms/bash")
    rev: str = Field("", description="Its commit, 40 hexadecimal digits; by default the head of the branch")
    branch: str = Field("", description="Its branch; rawhide by default")
    message: str = Field("", description="A message as JSON: a push, or one of our own")
    koji_task: int | None = Field(None, ge=1, description="A finished Koji build whose packages are tested")

    @property
    def title(self) -> str:
        """The run's title until its change is looked up."""
        parts = (self.repo, self.branch, self.rev[:7], f"Koji task {self.koji_task}" if self.koji_task else "")
        return " ".join(part for part in parts if part) or "message"


@dataclass(frozen=True)
class Source:
    """The source and the target of a Koji build task."""

    source: str
    target: str


class Lookup(Protocol):
    """Completes a name that does not say it all, from dist-git or Koji."""

    def head(self, namespace: str, repo: str, branch: str) -> str:
        """The latest commit of a branch. Raises ConfigurationError when there is none."""

    def source(self, koji_task: int) -> Source:
        """The source and the target of a task of the site's Koji. Raises ConfigurationError when it is no build."""


@dataclass(frozen=True)
class ResolvedRequest:
    """The change that is meant, the pipeline that a message of ours was of, and the build to reuse."""

    change: Change
    pipeline: Pipeline | None = None
    koji_task: int | None = None


def change_of(request: Change | RunRequest, lookup: Lookup, settings: Settings) -> ResolvedRequest:
    """The change that is requested; nothing is looked up for one that is given in full.

    Raises ConfigurationError for none, for two, and for one that cannot be found.
    ``koji_task`` may come with ``repo``, ``rev`` and ``branch``: a build from an SRPM does not say its commit.
    """
    if isinstance(request, Change):
        return ResolvedRequest(request)
    ways = [bool(request.message), bool(request.repo or request.koji_task)]
    if sum(ways) != 1:
        raise ConfigurationError("no change is named" if not any(ways) else "two changes are named", hint=_HINT)
    if (request.rev or request.branch) and not (request.repo or request.koji_task):
        raise ConfigurationError("a rev or branch alone names no change", hint=_HINT)
    if request.message:
        change, pipeline = change_of_file(None, request.message.encode(), settings)
        return ResolvedRequest(change, pipeline)
    if request.repo:
        return ResolvedRequest(_of_repo(request, lookup), koji_task=request.koji_task)
    assert request.koji_task is not None  # noqa: S101 - one of them is there
    return ResolvedRequest(_of_task(request, request.koji_task, lookup), koji_task=request.koji_task)


def _of_repo(request: RunRequest, lookup: Lookup) -> Change:
    namespace, _, repo = request.repo.rpartition("/")
    branch = request.branch or "rawhide"
    if request.koji_task and not request.rev:
        return _of_task(request, request.koji_task, lookup)
    # The shape of the names first: they become a part of addresses.
    change = _change(namespace=namespace or "rpms", repo=repo, branch=branch, rev=request.rev or "0" * 40)
    return change if request.rev else change.model_copy(update={"rev": lookup.head(change.namespace, repo, branch)})


def _of_task(request: RunRequest, task: int, lookup: Lookup) -> Change:
    source = lookup.source(task)
    commit = _SOURCE.fullmatch(source.source)
    if commit is None:
        raise ConfigurationError(
            f"Koji task {task} was built from {source.source}, which names no commit",
            hint="give repo, rev and branch beside koji_task",
        )
    branch = request.branch or branch_of_target(source.target)
    return _change(**commit.groupdict(), branch=branch)


def branch_of_target(target: str) -> str:
    """The dist-git branch that is built for a Koji target; ConfigurationError for one that is no branch's."""
    name = target.removesuffix("-candidate")
    if name in RAWHIDE or re.fullmatch(r"f[2-9][0-9]", name):
        return name
    raise ConfigurationError(f"no branch is known for the Koji target {target}", hint="give branch beside koji_task")


def _change(**parts: Any) -> Change:
    try:
        return Change(**parts, username="distgate", summary="started by hand")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name, value = first["loc"][0], parts.get(str(first["loc"][0]))
        hint = "40 hexadecimal digits, please" if name == "rev" else "as dist-git has it"
        raise ConfigurationError(f"the {name} is wrong: {str(value)[:60]!r}", hint=hint) from error
