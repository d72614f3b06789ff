"""What people name when they start a run by hand, the change that is meant, and what they are told otherwise."""

from __future__ import annotations

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from distgate.changes.change import Change
from distgate.changes.retrigger import ResolvedRequest, RunRequest, Source, branch_of_target, change_of
from distgate.errors import ConfigurationError
from distgate.settings import Settings

#: What the parameter of the flows takes.
ANY: TypeAdapter[Change | RunRequest] = TypeAdapter(Change | RunRequest)
REV, HEAD = "a" * 40, "b" * 40
BASH = {"namespace": "rpms", "repo": "bash", "rev": REV, "branch": "f44"}
PUSH = {"topic": "org.fedoraproject.prod.git.receive", "msg": {"commit": {**BASH, "username": "jane"}}}
OURS = {"topic": "org.centos.prod.ci.pipeline.package.complete", **BASH, "username": "fedora-atomic"}

SOURCES = {
    7: Source(f"git+https://src.fedoraproject.org/rpms/bash.git#{REV}", "f44"),
    8: Source(f"git+https://src.fedoraproject.org/rpms/libstdc++?#{REV}", "rawhide"),
    9: Source("cli-build/1700000000.1/bash-5-1.src.rpm", "f44-candidate"),
    10: Source(f"git+https://src.fedoraproject.org/rpms/bash.git#{REV}", "eln"),
}


class RecordedDecision:
    """Stands for dist-git and Koji."""

    def head(self, namespace: str, repo: str, branch: str) -> str:
        if repo == "nowhere":
            raise ConfigurationError(f"{namespace}/{repo} has no branch {branch}")
        return HEAD

    def source(self, koji_task: int) -> Source:
        return SOURCES[koji_task]


def asked(**named: object) -> ResolvedRequest:
    return change_of(ANY.validate_python(named), RecordedDecision(), Settings())


#: What is named; namespace/repo@branch#rev of the change that is meant; the pipeline; the build to reuse.
CASES: list[tuple[dict[str, object], str, str | None, int | None]] = [
    (BASH, f"rpms/bash@f44#{REV}", None, None),
    ({"repo": "bash", "rev": REV, "branch": "f44"}, f"rpms/bash@f44#{REV}", None, None),
    ({"repo": "bash", "rev": REV}, f"rpms/bash@rawhide#{REV}", None, None),
    ({"repo": "bash"}, f"rpms/bash@rawhide#{HEAD}", None, None),
    ({"repo": "tests/shell", "branch": "main"}, f"tests/shell@main#{HEAD}", None, None),
    ({"message": json.dumps(PUSH)}, f"rpms/bash@f44#{REV}", "allpackages", None),
    ({"message": json.dumps(OURS)}, f"rpms/bash@f44#{REV}", "atomic", None),
    ({"koji_task": 7}, f"rpms/bash@f44#{REV}", None, 7),
    ({"koji_task": 8}, f"rpms/libstdc++@rawhide#{REV}", None, 8),
    ({"koji_task": 10, "branch": "f45"}, f"rpms/bash@f45#{REV}", None, 10),
    ({"koji_task": 9, "repo": "bash", "rev": REV, "branch": "f44"}, f"rpms/bash@f44#{REV}", None, 9),
]


@pytest.mark.parametrize(("named", "key", "pipeline", "task"), CASES)
def test_one_change_is_meant(named: dict[str, object], key: str, pipeline: str | None, task: int | None) -> None:
    found = asked(**named)
    assert (found.change.key, found.pipeline, found.koji_task) == (key, pipeline, task)


#: What is named, and a part of what people are told.
REFUSED: list[tuple[dict[str, object], str]] = [
    ({}, "no change is named"),
    ({"message": "{}", "koji_task": 7}, "two changes are named"),
    ({"rev": REV}, "no change is named"),
    ({"message": "{}", "rev": REV}, "a rev or branch alone"),
    ({"repo": "bash", "rev": "7a1b2c3"}, "the rev is wrong: '7a1b2c3'"),
    ({"repo": "../bash"}, "the namespace is wrong: '..'"),
    ({"repo": "bash", "branch": "$(id)"}, "the branch is wrong"),
    ({"repo": "nowhere"}, "has no branch rawhide"),
    ({"message": "not json"}, "would be rejected"),
    ({"koji_task": 9}, "names no commit"),
    ({"koji_task": 10}, "no branch is known for the Koji target eln"),
]


@pytest.mark.parametrize(("named", "said"), REFUSED, ids=[case[1] for case in REFUSED])
def test_what_names_no_change_is_refused_in_words(named: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        asked(**named)
    assert said in caught.value.message
    assert caught.value.hint or said.startswith("has no")


def test_a_change_is_read_as_strictly_as_from_the_bus() -> None:
    with pytest.raises(ValidationError):
        ANY.validate_python({**BASH, "rev": {"__prefect_kind": "jinja"}})
    assert Change.model_validate(BASH).username == "unknown"


def test_a_target_has_a_branch() -> None:
    assert [branch_of_target(one) for one in ("rawhide", "f44", "f44-candidate")] == ["rawhide", "f44", "f44"]
