"""Whole files: what readers see while others write, and what a writer that fails leaves."""

import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgate.errors import ConfigurationError, InfrastructureError
from distgate.files import draft_of, write_whole
from distgate.records import read_record, write_record

WRITES = 500
SIZE = 20_000


def write_often(path: Path, letter: str) -> None:
    for _ in range(WRITES):
        write_whole(path, letter * SIZE)


def in_processes(*targets: tuple[Callable[..., None], tuple[object, ...]]) -> list[multiprocessing.Process]:
    processes = [multiprocessing.get_context("fork").Process(target=target, args=words) for target, words in targets]
    for process in processes:
        process.start()
    return processes


def test_readers_see_a_whole_file_while_several_processes_write_it_and_no_write_fails(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    write_whole(path, "a" * SIZE)
    writers = in_processes(*((write_often, (path, letter)) for letter in "abc"))
    reads = 0
    while any(writer.is_alive() for writer in writers):
        content = path.read_text()
        assert content in ("a" * SIZE, "b" * SIZE, "c" * SIZE)
        reads += 1
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert reads > 10
    assert os.listdir(tmp_path) == ["health.json"]


def write_beyond_the_limit(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        write_whole(path, "b" * SIZE)
    except OSError as error:
        os._exit(error.errno or 0)


def test_a_write_that_fails_is_told_and_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_whole(path, "old")
    (writer,) = in_processes((write_beyond_the_limit, (path,)))
    writer.join()
    assert writer.exitcode == errno.EFBIG
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_file_has_the_permissions_that_were_asked_for(tmp_path: Path) -> None:
    write_whole(tmp_path / "secret", b"\0", mode=0o600)
    write_whole(tmp_path / "list", "x\n", mode=0o664)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("secret", "list")] == [0o600, 0o664]


def test_a_link_takes_the_place_of_another_in_one_step(tmp_path: Path) -> None:
    for target in ("first", "second"):
        with draft_of(tmp_path / "latest") as link:
            link.symlink_to(target)
        assert os.readlink(tmp_path / "latest") == target
    assert os.listdir(tmp_path) == ["latest"]


@dataclass(frozen=True)
class Disk:
    path: Path
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Machine:
    name: str
    disks: tuple[Disk, ...]
    owners: dict[str, Disk]


MACHINE = Machine("gränd\udc80", (Disk(Path("/a"), (1, 2)),), {"root": Disk(Path("b"))})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(tmp_path / "machine.json", MACHINE)
    assert read_record(tmp_path / "machine.json", Machine) == MACHINE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"disks": [{"path": "/a", "parts": ["x"]}]}, "the field disks.0.parts.0 is wrong: "),
        ({"name": None}, "the field name is wrong: "),
        ({"owners": 5}, "the field owners is wrong: "),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "machine.json"
    write_record(path, MACHINE)
    path.write_text(json.dumps(json.loads(path.read_text()) | change | {"new": "of a later version"}))
    with pytest.raises(InfrastructureError, match=f"^{path}: {message}"):
        read_record(path, Machine, raises=InfrastructureError)


@pytest.mark.parametrize("text", ["", '{"name": "x', "[" * 100_000])
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "machine.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=f"^{path} is no JSON"):
        read_record(path, Machine)
