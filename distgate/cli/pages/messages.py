"""The reference page of topics and fields, written from the stage table: ``distgate messages reference``."""

from __future__ import annotations

from collections.abc import Iterator

from distgate.bus.render import NEVER_EMPTY, Facts
from distgate.pipelines import CONSTANTS, STAGES, Pipeline, Stage, topic_of
from distgate_messages.fields import BASE_FIELDS

_TITLES: dict[Pipeline, tuple[str, str]] = {
    "allpackages": ("All Packages", "distgate_messages.allpackages.StageV1"),
    "atomic": ("Atomic Host", "distgate_messages.atomic.StageV1"),
}
#: What each field holds; a field of the table that is missing here fails the page.
_MEANINGS = {
    "CI_NAME": "who speaks",
    "CI_TYPE": "constant",
    "branch": "the branch that was pushed to",
    "build_id": "the flow run; a retry after the last message is `<flow run>.2`; the change's own ID in `ignored`",
    "build_url": "the run's page in the Prefect UI",
    "message-content": "constant",
    "namespace": "dist-git namespace, such as `rpms`",
    "ref": "All Packages: `x86_64`; Atomic Host: `fedora/<branch>/x86_64/atomic-host`",
    "repo": "the dist-git repository",
    "rev": "the commit, 40 hexadecimal digits",
    "status": "`SUCCESS`, `UNSTABLE`, `FAILURE` or `ABORTED`: of the pipeline so far",
    "test_guidance": "constant (two quote characters)",
    "topic": "the topic, which is the AMQP routing key as well",
    "username": "All Packages: the committer; Atomic Host: `fedora-atomic`",
    "nvr": "what was built; Atomic Host: with the commit in its release",
    "original_spec_nvr": "the NVR as the spec file has it",
    "compose_rev": "the ostree commit",
    "compose_url": "the ostree repository",
    "image_name": "the image's file name",
    "image_url": "where the image is",
    "package_url": "the repository with the built packages",
    "type": "the image's format, `qcow2`",
}


def page() -> str:
    """The whole page as markdown, ending in a newline."""
    parts = [_HEAD, *(_pipeline(pipeline) for pipeline in _TITLES), _fields()]
    return "\n".join(parts)


_HEAD = """# Reference: topics and fields

Written by `distgate messages reference` from the stage table (distgate/pipelines.py); change that.
[messages.md](messages.md) says what the messages mean. Topics begin with `DISTGATE_MAIN_TOPIC`, here
`org.centos.prod`. Bodies are flat, and every value is text.
"""


def _pipeline(pipeline: Pipeline) -> str:
    title, schema = _TITLES[pipeline]
    rows = [row for stage in STAGES[pipeline].values() for row in _rows(pipeline, stage)]
    head = f"## {title}\n\nSchema class `{schema}`. Every message has the base fields; those beyond them:\n"
    return "\n".join(
        [head, "| topic | fields beyond the base | value before it is known |", "|---|---|---|", *rows, ""]
    )


def _rows(pipeline: Pipeline, stage: Stage) -> Iterator[str]:
    for state in stage.states:
        early = stage.early.get(state, {})
        fields = ", ".join(f"`{name}`" for name in stage.fields_of(state))
        placeholders = ", ".join(
            f"`{name}` {_shown(early[name])}" for name in stage.fields_of(state) if name in early
        )
        yield f"| `{topic_of(pipeline, stage.suffix, state, 'org.centos.prod')}` | {fields} | {placeholders} |"


def _fields() -> str:
    later = [name for name in Facts.model_fields if name in _MEANINGS and name not in BASE_FIELDS]
    rows = [f"| `{name}` | {_kind(name)} | {_meaning(name)} |" for name in (*BASE_FIELDS, *later)]
    return "\n".join(["## Fields", "", "| field | kind | holds |", "|---|---|---|", *rows, ""])


def _kind(name: str) -> str:
    if name in NEVER_EMPTY:
        return "base, never empty"
    return "base" if name in BASE_FIELDS else "by topic"


def _meaning(name: str) -> str:
    constant = f": {_shown(CONSTANTS[name])}" if name in CONSTANTS else ""
    return _MEANINGS[name] + constant


def _shown(value: str) -> str:
    return f"`{value}`" if value else "empty"
