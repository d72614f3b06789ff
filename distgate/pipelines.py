"""What runs go through: the branches that are built, and the stage table, which has all that is known of a stage, one
row each, in the order in which a pipeline has them.

Topics, fields and early values are those of docs/reference-messages.md; ``render`` in
distgate.bus.render turns a row and the facts of a run into a body. Nothing else knows a topic. To add a stage: a row
here, a module in tasks/ whose task is marked with it, and a line in the pipeline's flow.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from distgate.errors import ConfigurationError
from distgate_messages.fields import NVR_FIELDS

Pipeline = Literal["allpackages", "atomic"]
#: Both, the first one first.
PIPELINES: tuple[Pipeline, ...] = get_args(Pipeline)
Status = Literal["SUCCESS", "FAILURE", "UNSTABLE", "ABORTED"]

#: Names of the development branch over the years.
RAWHIDE = frozenset({"rawhide", "main", "master"})

#: From good to bad. A pipeline's status never gets better again.
STATUS_ORDER: Mapping[str, int] = {"SUCCESS": 0, "UNSTABLE": 1, "FAILURE": 2, "ABORTED": 2}

#: The name of the state in which Prefect has a run that did nothing, since another run holds its change.
DUPLICATE = "Duplicate"
HELD = "another run holds this change; again=true tests it once more"
#: That of a run whose tests ran and did not all pass.
UNSTABLE = "Unstable"
#: That of a run that did not get as far, by who is to blame (distgate.errors.Blame): what an operator has to look at
#: is told apart in a list of runs from what is a packager's. A bug is plain Failed, with its traceback in the log.
FAILURES: Mapping[str, str] = {
    "package": "Package failed",
    "tests": "Tests broken",
    "infrastructure": "Infrastructure failed",
    "configuration": "Misconfigured",
    "cancelled": "Aborted",
}

#: What our global limits in Prefect are called: each name begins with one of these, and goes on with whose it is.
KOJI_LIMIT = "koji-"
GUESTS_LIMIT = "guests-"
OSTREE_LIMIT = "ostree-"
#: A server may have others, which are none of ours.
LIMITS = (KOJI_LIMIT, GUESTS_LIMIT, OSTREE_LIMIT)

#: What the original's shell scripts sent for a value that they did not have yet.
QUOTES = "''"
CONSTANTS: Mapping[str, str] = {"CI_TYPE": "custom", "message-content": "", "test_guidance": QUOTES}

_UNBUILT = dict.fromkeys(NVR_FIELDS, "")
_TRIGGER = ("queued", "ignored", "ignore")
_ALL = ("queued", "running", "complete")
_WORK = ("running", "complete")


@dataclass(frozen=True)
class TestKind:
    """What a stage that tests something is called as a test, and the kind of test that others file it under."""

    __test__ = False  # not a pytest class

    name: str
    category: str


@dataclass(frozen=True)
class Stage:
    """One row: the stage ``suffix``, which the UI calls ``title``, its messages, and what it leaves behind.

    ``states`` are sent, with ``fields`` beyond the base; ``early`` is what these hold before they are known, and the
    states ``bare`` carry the base fields alone.
    """

    suffix: str
    title: str
    states: tuple[str, ...]
    fields: tuple[str, ...] = ()
    early: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bare: tuple[str, ...] = ()
    directories: tuple[str, ...] = ()
    """Where the run's directory has its logs; its own one first."""
    live: str = ""
    """The key of what the run's page shows of it while it works."""
    facts: tuple[str, ...] = ()
    """What later messages know by it, besides its own status."""
    records: tuple[str, ...] = ()
    """What the run record has of it (distgate.runs.record.RunRecord)."""
    test: TestKind | None = None
    owed: bool = False
    """Whether a run that passed must have gone through it; others are left out with a reason of their own."""

    def fields_of(self, state: str) -> tuple[str, ...]:
        """The fields beyond the base of a message whose status is ``state``."""
        return () if state in self.bare else self.fields

    @property
    def directory(self) -> str:
        """The name of its own directory in the run's."""
        return self.directories[0]


def _rows(*stages: Stage) -> Mapping[str, Stage]:
    return {stage.suffix: stage for stage in stages}


_COMPOSE = (*NVR_FIELDS, "compose_rev", "compose_url")
_IMAGE = (*_COMPOSE, "image_name", "image_url", "type")
_SMOKE = TestKind("smoke", "validation")
#: The package's own tests.
FUNCTIONAL = TestKind("functional", "functional")
_BUILT = ("nvr", "original_spec_nvr", "package_url", "koji_task")

STAGES: Mapping[Pipeline, Mapping[str, Stage]] = {
    "allpackages": _rows(
        Stage(
            "package",
            "Build package",
            (*_TRIGGER[:2], *_WORK),
            NVR_FIELDS,
            dict.fromkeys(("queued", "ignored", "running"), _UNBUILT),
            directories=("build",),
            live="koji-tasks",
            facts=_BUILT,
            records=("build",),
            owed=True,
        ),
        Stage(
            "image",
            "Compose image",
            _ALL,
            (*NVR_FIELDS, "type"),
            {"running": {"type": QUOTES}},
            directories=("image",),
            live="image",
            records=("compose",),
            owed=True,
        ),
        Stage(
            "image.test.smoke",
            "Smoke test",
            _ALL,
            (*NVR_FIELDS, "type"),
            directories=("smoke",),
            live="boot",
            records=("smoke",),
            test=_SMOKE,
            owed=True,
        ),
        Stage(
            "package.test.functional",
            "Functional tests",
            _ALL,
            NVR_FIELDS,
            directories=("tests",),
            live="tests",
            records=("tests",),
            test=FUNCTIONAL,
        ),
        Stage("", "", ("complete",), NVR_FIELDS),
    ),
    "atomic": _rows(
        Stage(
            "package",
            "Build package",
            (*_TRIGGER, *_WORK),
            (*NVR_FIELDS, "compose_rev"),
            {
                "running": {**_UNBUILT, "compose_rev": ""},
                "complete": {"compose_rev": ""},
            },
            bare=_TRIGGER,
            directories=("build",),
            live="koji-tasks",
            facts=_BUILT,
            records=("build",),
            owed=True,
        ),
        Stage(
            "package.test.functional",
            "Functional tests on the package",
            _ALL,
            (*NVR_FIELDS, "package_url"),
            directories=("tests", "image"),
            live="tests",
            records=("compose", "tests"),
            test=FUNCTIONAL,
        ),
        Stage(
            "compose",
            "Compose OSTree",
            _WORK,
            _COMPOSE,
            {"running": {"compose_rev": QUOTES}},
            directories=("compose",),
            live="tree",
            facts=("compose_rev", "compose_url"),
            owed=True,
        ),
        Stage(
            "compose.test.integration",
            "Integration tests",
            _ALL,
            _COMPOSE,
            directories=("integration",),
            live="integration",
            test=TestKind("integration", "integration"),
            owed=True,
        ),
        Stage(
            "image",
            "Make image",
            _WORK,
            _IMAGE,
            {"running": {"image_name": QUOTES, "image_url": QUOTES}},
            directories=("host-image",),
            live="host-image",
            facts=("image_name", "image_url"),
        ),
        Stage(
            "image.test.smoke",
            "Image smoke test",
            _WORK,
            _IMAGE,
            directories=("host-smoke",),
            live="host-boot",
            test=_SMOKE,
        ),
        Stage(
            "compose.test.e2e",
            "e2e conformance",
            _ALL,
            _COMPOSE,
            directories=("e2e",),
            live="e2e",
            test=TestKind("e2e", "system"),
        ),
        Stage("", "", ("complete",), (*NVR_FIELDS, "compose_rev")),
    ),
}


def first_stage(pipeline: Pipeline) -> Stage:
    """The stage that every run begins with; what the trigger says of a change is said in its name."""
    return next(iter(STAGES[pipeline].values()))


_INFIX = {"allpackages": "allpackages.", "atomic": ""}


def topic_of(pipeline: Pipeline, suffix: str, state: str, main_topic: str) -> str:
    """The full topic of a message, which is also its AMQP routing key."""
    middle = f"{suffix}." if suffix else ""
    return f"{main_topic}.ci.pipeline.{_INFIX[pipeline]}{middle}{state}"


def split_topic(topic: str) -> tuple[Pipeline, str]:
    """The pipeline of a topic that ``topic_of`` made, and its stage and state: ``image.complete``, ``complete``."""
    rest = topic.split(".ci.pipeline.", 1)[-1]
    infix = _INFIX["allpackages"]
    return ("allpackages" if rest.startswith(infix) else "atomic"), rest.removeprefix(infix)


def koji_target(branch: str) -> str:
    """The Koji build target of a branch: ``rawhide`` or ``fNN``. Raises ConfigurationError for any other."""
    if branch in RAWHIDE:
        return "rawhide"
    if re.fullmatch(r"f[2-9][0-9]", branch):
        return branch
    raise ConfigurationError(f"no Koji target is known for branch {branch}", hint="rawhide and fNN are built")
