"""Which run somebody means: by its ID, by a message about it or its commit, or by its directory."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distgate.changes.change import normalise, unwrap
from distgate.errors import ConfigurationError
from distgate.files import RUN_RECORD
from distgate.pipelines import PIPELINES, Pipeline
from distgate.runs.record import RunRecord, load
from distgate.text import printable

#: A flow run's ID or its beginning, with the number that later attempts have on the wire.
_RUN = re.compile(r"([0-9a-f]{4}[0-9a-f-]{0,32})(?:\.\d+)?")
_LIMIT = 1 << 20  # bytes of a file that may be a message


@dataclass(frozen=True)
class FoundRun:
    """A run's directory and its capsule."""

    directory: Path
    capsule: RunRecord


def run_named(text: str) -> str | None:
    """The ID, or its beginning, by which ``text`` names a flow run: as it is, a ``build_id`` or the run's page.

    None when it names none.
    """
    found = _RUN.fullmatch(text.rstrip("/").rpartition("/")[2])
    return found[1] if found else None


def find_run(what: str, artifacts: Sequence[Path], pipeline: Pipeline | None = None) -> FoundRun:
    """The run that ``what`` names, looked for in the directories ``artifacts``, which hold one directory per run.

    ``what`` is a run's directory or its run.json, a file with a message (one of ours, or a push: its newest run),
    a flow run's ID, the beginning of one, a build_id, or the address of the run's page. Of a push, ``pipeline`` says
    whose run is meant; None is that of either. Raises ConfigurationError.
    """
    # Not Path.exists, which raises for a name that is too long, such as a message that was pasted.
    if os.path.exists(what):
        path = Path(what).resolve()
        return _in_directory(path) if path.is_dir() else _from_file(path, artifacts, pipeline)
    named = run_named(what)
    if named is None:
        raise ConfigurationError(
            f"{printable(what[:100], newlines=False)!r} is neither a file nor a run",
            hint="name a run's ID, its directory, or a file with a message about it",
        )
    return _by_id(named, artifacts)


def _in_directory(directory: Path) -> FoundRun:
    return FoundRun(directory, load(directory / RUN_RECORD))


def _from_file(path: Path, artifacts: Sequence[Path], pipeline: Pipeline | None) -> FoundRun:
    if path.name == RUN_RECORD:
        return _in_directory(path.parent)
    body = _message_in(path)
    if "run_id" in body and "change" in body:  # a capsule under another name
        return FoundRun(path.parent, load(path))
    topic, inner = unwrap("", body)
    if ".ci.pipeline." in topic:
        return _by_build_id(path, inner, artifacts)
    key = normalise(topic, inner).change.key
    wanted = (pipeline,) if pipeline else PIPELINES
    found = [one for one in _runs(artifacts) if one.capsule.change.key == key and one.capsule.pipeline in wanted]
    if not found:
        raise ConfigurationError(
            f"no run of {key}{f' for {pipeline}' if pipeline else ''} is in {_places(artifacts)}",
            hint="DISTGATE_ARTIFACTS_DIR says where",
        )
    return max(found, key=lambda one: (one.directory / RUN_RECORD).stat().st_mtime)


def _by_build_id(path: Path, body: Any, artifacts: Sequence[Path]) -> FoundRun:
    named = _RUN.fullmatch(str(body.get("build_id", "")))
    if not named:
        raise ConfigurationError(f"the message in {path} has no build_id of ours", hint="name the run's ID instead")
    return _by_id(named[1], artifacts)


def _by_id(beginning: str, artifacts: Sequence[Path]) -> FoundRun:
    found = sorted(
        {path for place in artifacts if place.is_dir() for path in place.glob(f"{beginning}*") if path.is_dir()}
    )
    if len(found) == 1:
        return _in_directory(found[0])
    if found:
        names = "\n".join(path.name for path in found[:20])
        raise ConfigurationError(
            f"{len(found)} runs begin with {beginning}", hint="say more of the ID", evidence=names
        )
    raise ConfigurationError(
        f"run {beginning} is not in {_places(artifacts)}",
        hint="DISTGATE_ARTIFACTS_DIR says where runs are; a run's directory can be named instead, also a copy",
    )


def _runs(artifacts: Sequence[Path]) -> Iterator[FoundRun]:
    for place in artifacts:
        for path in sorted(place.glob(f"*/{RUN_RECORD}")):
            try:
                yield FoundRun(path.parent, load(path))
            except ConfigurationError:  # one that is broken hides none of the others
                continue


def _message_in(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            body = json.loads(stream.read(_LIMIT))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is no message: {error}", hint="one JSON object, enveloped or bare"
        ) from error
    if not isinstance(body, dict):
        raise ConfigurationError(f"{path} is no message: it holds no JSON object")
    return body


def _places(artifacts: Sequence[Path]) -> str:
    return " or ".join(str(place) for place in artifacts)
