"""Prefect's results as files, on a disk and in an object store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_store import running_object_store

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.operations.stored_results import ResultStorage

Opened = tuple[ResultStorage, Callable[[str], None]]


@pytest.fixture(params=["directory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """A storage, and how something is put into it."""
    if request.param == "directory":

        def write(name: str) -> None:
            (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "results" / name).write_text("result")

        yield ResultStorage(str(tmp_path / "results")), write
        return
    with running_object_store() as running:
        bucket = running.bucket()
        files = running.files()
        yield (
            ResultStorage(f"{bucket}/results", running.options),
            lambda name: files.pipe_file(f"{bucket}/results/{name}", b"result"),
        )


def test_results_are_listed_with_size_and_age_and_removed_by_name(storage: Opened) -> None:
    opened, write = storage
    assert opened.results() == []
    for name in ("one", "two words-Build package", "deeper/three"):
        write(name)
    found = {one.name: one for one in opened.results()}
    assert set(found) == {"one", "two words-Build package"}
    assert all(one.size == 6 for one in found.values())
    assert all(one.written is not None and abs(time.time() - one.written) < 600 for one in found.values())
    for _ in range(2):
        opened.remove(["two words-Build package"])
    assert [one.name for one in opened.results()] == ["one"]


def test_a_storage_that_nobody_here_can_open_is_named() -> None:
    with pytest.raises(ConfigurationError, match="nosuch"):
        ResultStorage("nosuch://somewhere")


def test_a_storage_that_does_not_work_is_our_infrastructure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InfrastructureError, match="does not do its work"):
        ResultStorage(str(tmp_path / "file" / "results")).results()
    (tmp_path / "directory").mkdir()
    with pytest.raises(InfrastructureError, match="does not do its work"):
        ResultStorage(str(tmp_path)).remove(["directory"])
