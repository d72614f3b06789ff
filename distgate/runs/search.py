"""Find a run by its ID, by a message about it or its commit, or by its directory."""

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
class RecordedRun:
    """A run's directory and its record."""

    directory: Path
    record: RunRecord


def run_named(text: str) -> str | None:
    """The ID, or its beginning, by which ``text`` names a flow run: as it is, a ``build_id`` or the run's page.

    None when it names none.
    """
    match = _RUN.fullmatch(text.rstrip("/").rpartition("/")[2])
    return match[1] if match else None


def find_run(what: str, artifacts: Sequence[Path], pipeline: Pipeline | None = None) -> RecordedRun:
    """The run that ``what`` names, looked for in the directories ``artifacts``, which hold one directory per run.

    ``what`` is a run's directory or its run.json, a file with a message (one of ours, or a push: its newest run),
    a flow run's ID, the beginning of one, a build_id, or the address of the run's page. Of a push, ``pipeline`` says
    whose run it is; None is that of either. Raises ConfigurationError.
    """
    # Not Path.exists, which raises for a name that is too long, such as a message that was pasted.
    if os.path.exists(what):
        path = Path(what).resolve()
        return _in_directory(path) if path.is_dir() else _from_file(path, artifacts, pipeline)
    run_id = run_named(what)
    if run_id is None:
        raise ConfigurationError(
            f"{printable(what[:100], newlines=False)!r} is neither a file nor a run",
            hint="name a run's ID, its directory, or a file with a message about it",
        )
    return _by_id(run_id, artifacts)


def _in_directory(directory: Path) -> RecordedRun:
    return RecordedRun(directory, load(directory / RUN_RECORD))


def _from_file(path: Path, artifacts: Sequence[Path], pipeline: Pipeline | None) -> RecordedRun:
    if path.name == RUN_RECORD:
        return _in_directory(path.parent)
    body = _message_in(path)
    if "run_id" in body and "change" in body:  # a record under another name
        return RecordedRun(path.parent, load(path))
    topic, inner = unwrap("", body)
    if ".ci.pipeline." in topic:
        return _by_build_id(path, inner, artifacts)
    key = normalise(topic, inner).change.key
    pipelines = (pipeline,) if pipeline else PIPELINES
    runs = [run for run in _runs(artifacts) if run.record.change.key == key and run.record.pipeline in pipelines]
    if not runs:
        raise ConfigurationError(
            f"no run of {key}{f' for {pipeline}' if pipeline else ''} is in {_places(artifacts)}",
            hint="DISTGATE_ARTIFACTS_DIR says where",
        )
    return max(runs, key=lambda run: (run.directory / RUN_RECORD).stat().st_mtime)


def _by_build_id(path: Path, body: Any, artifacts: Sequence[Path]) -> RecordedRun:
    run_id = _RUN.fullmatch(str(body.get("build_id", "")))
    if not run_id:
        raise ConfigurationError(f"the message in {path} has no build_id of ours", hint="name the run's ID instead")
    return _by_id(run_id[1], artifacts)


def _by_id(beginning: str, artifacts: Sequence[Path]) -> RecordedRun:
    directories = sorted(
        {path for root in artifacts if root.is_dir() for path in root.glob(f"{beginning}*") if path.is_dir()}
    )
    if len(directories) == 1:
        return _in_directory(directories[0])
    if directories:
        names = "\n".join(path.name for path in directories[:20])
        raise ConfigurationError(
            f"{len(directories)} runs begin with {beginning}", hint="say more of the ID", evidence=names
        )
    raise ConfigurationError(
        f"run {beginning} is not in {_places(artifacts)}",
        hint="DISTGATE_ARTIFACTS_DIR says where runs are; a run's directory can be named instead, also a copy",
    )


def _runs(artifacts: Sequence[Path]) -> Iterator[RecordedRun]:
    for root in artifacts:
        for path in sorted(root.glob(f"*/{RUN_RECORD}")):
            try:
                yield RecordedRun(path.parent, load(path))
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
    return " or ".join(str(root) for root in artifacts)
